"""What keepers and their worker share: the last delivery that a keeper killed."""

from __future__ import annotations

import mmap
from typing import Final
from uuid import UUID

_BYTES: Final = 8
_MASK: Final = 2**64 - 1


class KillNote:
    """Made before the fork of whoever writes or reads it.

    A keeper kills a hung task although the ledger is away, and reports why when it is back. The worker reaps the horse in the
    same instant; its mere death, told first, would charge every task that the horse held. One word is enough, since a worker
    has one horse at a time, and it is stored by one instruction.
    """

    def __init__(self) -> None:
        self._word = memoryview(mmap.mmap(-1, _BYTES)).cast("Q")

    def write(self, delivery: UUID) -> None:
        """The keeper ends this delivery, and tells the ledger why."""
        self._word[0] = _short(delivery)

    def names(self, delivery: UUID) -> bool:
        """Whether a keeper has ended that delivery."""
        return self._word[0] == _short(delivery)


def _short(delivery: UUID) -> int:
    """The half that is random, or hashed, in every version in use; never what an untouched page holds."""
    return delivery.int & _MASK
