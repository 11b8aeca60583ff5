"""The OpenAI embedder, with the official client against a stand-in that is as strict as the service."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

import pytest

from ledgerq.documents.embed.openai import OpenAIEmbedder, OpenAISettings
from ledgerq.errors import ConfigurationError, EmbedderUnavailable, InvalidInput
from ledgerq.retry import Judgement, classify
from tests.support.openai_server import KEY, NO_QUOTA, OVERLOADED, RATE_LIMITED, Fault, OpenAIServer, embedding_of, openai_server

MODEL = "text-embedding-3-small"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def embedder(server: OpenAIServer, waits: list[float]) -> Iterator[OpenAIEmbedder]:
    made = make(server, waits)
    yield made
    made.close()


def make(
    server: OpenAIServer, waits: list[float], *, model: str = MODEL, key: str = KEY, dimensions: int | None = 64, timeout_s: float = 20
) -> OpenAIEmbedder:
    settings = OpenAISettings(sleep=waits.append, timeout_s=timeout_s)
    return OpenAIEmbedder(model, api_key=key, base_url=server.base_url, dimensions=dimensions, settings=settings)


def test_vectors_tokens_and_cost(embedder: OpenAIEmbedder) -> None:
    embedded = embedder.embed(["hello world", "flutter"])
    assert embedded.vectors[0] == pytest.approx(embedding_of("hello world", 64), abs=1e-6)
    assert embedded.tokens == 3
    assert embedded.cost == pytest.approx(3 * 0.02 / 1e6)


def test_vectors_are_put_in_the_order_of_the_texts(embedder: OpenAIEmbedder, server: OpenAIServer) -> None:
    server.shuffled = True
    texts = [f"text {number}" for number in range(5)]
    assert embedder.embed(texts).vectors == [pytest.approx(embedding_of(text, 64), abs=1e-6) for text in texts]


def test_full_dimensions_are_not_asked_for(server: OpenAIServer, waits: list[float]) -> None:
    embedder = make(server, waits, model="text-embedding-ada-002", dimensions=None)
    assert len(embedder.embed(["x"]).vectors[0]) == 1_536
    assert "dimensions" not in server.requests[0]
    embedder.close()


@pytest.mark.parametrize("fault", [RATE_LIMITED, OVERLOADED, Fault(500), Fault(408), Fault(409)])
def test_a_short_failure_is_waited_out(embedder: OpenAIEmbedder, server: OpenAIServer, waits: list[float], fault: Fault) -> None:
    server.faults.extend([fault, fault])
    assert len(embedder.embed(["x"]).vectors) == 1
    assert len(server.requests) == 3
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_a_short_wait_that_was_asked_for_is_kept(embedder: OpenAIEmbedder, server: OpenAIServer, waits: list[float]) -> None:
    server.faults.extend([Fault(429, headers={"retry-after": "2"}), Fault(429, headers={"retry-after-ms": "1500"})])
    embedder.embed(["x"])
    assert waits == [2.0, 1.5]


def test_a_long_wait_is_the_ledgers(embedder: OpenAIEmbedder, server: OpenAIServer, waits: list[float]) -> None:
    server.faults.append(Fault(429, "rate_limit_exceeded", headers={"retry-after": "40"}))
    with pytest.raises(EmbedderUnavailable, match=f"openai:{MODEL}: RateLimitError: no") as caught:
        embedder.embed(["x"])
    assert caught.value.retry_after == 40.0
    assert classify(caught.value) is Judgement.THROTTLED
    assert (len(server.requests), waits) == (1, [])


def test_a_lasting_failure_ends_after_a_few_tries(embedder: OpenAIEmbedder, server: OpenAIServer, waits: list[float]) -> None:
    server.judge = lambda _: RATE_LIMITED
    with pytest.raises(EmbedderUnavailable, match="Rate limit reached"):
        embedder.embed(["x"])
    assert (len(server.requests), len(waits)) == (4, 3)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(200, raw=b"<html>maintenance</html>", headers={"content-type": "text/html"}),
        Fault(200, raw=b'{"object": "list", "data": [], "usage": {"total_tokens": 1}}'),
        Fault(200, raw=b'{"object": "list", "data": [{"index": 0, "embed'),
        Fault(200, raw=b'{"object": "list", "data": [{"index": 0, "embedding": null}]}'),
        Fault(200, raw=b'{"object": "list", "data": [{"index": 0, "embedding": "AAA"}]}'),
        Fault(200, raw=b"[]"),
        Fault(200, raw=b"null"),
        Fault(200, raw=b""),
    ],
)
def test_an_answer_that_is_none_is_waited_out(embedder: OpenAIEmbedder, server: OpenAIServer, fault: Fault) -> None:
    server.faults.append(fault)
    assert len(embedder.embed(["x"]).vectors) == 1
    server.judge = lambda _: fault
    with pytest.raises(EmbedderUnavailable, match=f"openai:{MODEL} answered"):
        embedder.embed(["x"])


def test_tokens_are_counted_where_the_server_does_not(embedder: OpenAIEmbedder, server: OpenAIServer) -> None:
    vector = json.dumps([0.5] * 64)
    for usage in ("", ', "usage": null', ', "usage": {}'):
        server.faults.append(Fault(200, raw=f'{{"data": [{{"index": 0, "embedding": {vector}}}]{usage}}}'.encode()))
        assert embedder.embed(["hello world"]).tokens == 2


@pytest.mark.parametrize(("date", "wait"), [("Fri, 01 Jan 2100 00:00:00 GMT", 40.0), ("Fri, 01 Jan 2100 00:01:00 GMT", 0.0), (None, None)])
def test_a_date_to_wait_for_is_read_by_the_servers_clock(
    embedder: OpenAIEmbedder, server: OpenAIServer, date: str | None, wait: float | None
) -> None:
    headers = {"retry-after": "Fri, 01 Jan 2100 00:00:40 GMT"} | ({"date": date} if date else {})
    server.judge = lambda _: Fault(429, "rate_limit_exceeded", headers=headers)
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(["x"])
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    "fault", [NO_QUOTA, Fault(429, None, kind="insufficient_quota"), Fault(401, "invalid_api_key"), Fault(403, None, "no access")]
)
def test_what_waiting_does_not_help_is_permanent_at_once(embedder: OpenAIEmbedder, server: OpenAIServer, fault: Fault) -> None:
    server.faults.append(fault)
    with pytest.raises(ConfigurationError, match="check the key, its quota") as caught:
        embedder.embed(["x"])
    assert classify(caught.value) is Judgement.PERMANENT
    assert len(server.requests) == 1


def test_a_wrong_key_and_an_unknown_model(server: OpenAIServer, waits: list[float]) -> None:
    for wrong in (make(server, waits, key="sk-wrong"), make(server, waits, model="text-embedding-9", dimensions=8)):
        with pytest.raises(ConfigurationError):
            wrong.embed(["x"])
        wrong.close()


@pytest.mark.parametrize("texts", [["x " * 9_000], [""], ["a"] * 2_049, ["word " * 8_000] * 38])
def test_a_batch_over_the_limits_is_refused_for_good(embedder: OpenAIEmbedder, server: OpenAIServer, texts: list[str]) -> None:
    with pytest.raises(InvalidInput, match=rf"BadRequestError.*a batch of {len(texts)} texts"):
        embedder.embed(texts)
    assert len(server.requests) == 1


def test_a_slow_server_is_given_up(server: OpenAIServer, waits: list[float]) -> None:
    server.gate = threading.Event()
    embedder = make(server, waits, timeout_s=0.2)
    with pytest.raises(EmbedderUnavailable, match="APITimeoutError"):
        embedder.embed(["x"])
    embedder.close()


def test_no_server(waits: list[float]) -> None:
    nobody = OpenAIServer(url="http://127.0.0.1:9")
    embedder = make(nobody, waits)
    with pytest.raises(EmbedderUnavailable, match="APIConnectionError"):
        embedder.embed(["x"])
    embedder.close()


def test_a_server_of_other_dimensions_is_named(embedder: OpenAIEmbedder) -> None:
    embedder.dimensions = 32
    embedder._shortened = False
    with pytest.raises(ConfigurationError, match="answers 1536 dimensions, not 32: write openai:text-embedding-3-small@1536"):
        embedder.embed(["x"])


def test_a_forked_child_may_embed(server: OpenAIServer) -> None:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if len(make(server, []).embed(["x"]).vectors[0]) == 64 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
