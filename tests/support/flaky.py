"""Transports with bad luck: calls are made again, also while the first one is still being worked on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ledgerq.errors import LedgerUnavailable
from ledgerq.ledger import Transport
from ledgerq.models import Json


class LosesReplies:
    """Makes a part of the calls twice, and answers with the second answer, as a client would that missed the first.

    Half of those overlap: the client gave up waiting while the server was still at work.
    """

    def __init__(self, transport: Transport, rng: random.Random, *, rate: float, counts: Counter[str]) -> None:
        self._transport = transport
        self._random = rng
        self._rate = rate
        self._counts = counts
        self._beside = ThreadPoolExecutor(1)

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        if self._random.random() >= self._rate:
            return self._transport.call(function, arguments)
        self._counts["lost replies"] += 1
        if self._random.random() < 0.5:
            first = self._beside.submit(self._transport.call, function, arguments)
            try:
                return self._transport.call(function, arguments)
            finally:
                first.exception()
        self._transport.call(function, arguments)
        return self._transport.call(function, arguments)

    def close(self) -> None:
        self._beside.shutdown()
        self._transport.close()


class TriesAgain:
    """Does what workers and stewards do when the ledger is away for longer than a transport tries: they ask again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        for _ in range(2):
            try:
                return self._transport.call(function, arguments)
            except LedgerUnavailable:
                continue
        return self._transport.call(function, arguments)

    def close(self) -> None:
        self._transport.close()
