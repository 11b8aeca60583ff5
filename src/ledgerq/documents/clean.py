"""Makes text safe to store, hash and count by, once, before any offset into it is taken.

In this order: line ends of every kind become `\\n`; lone surrogates become U+FFFD; NUL, other control characters, byte
order marks, zero width spaces, soft hyphens and noncharacters go; of more than 30 marks on one character those beyond go (as many
as Unicode calls safe in streams, UAX #15; normalising takes a square of their number); what is left is put into Unicode's form
NFC. Cleaning clean text changes nothing, and takes time in proportion to its length.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

VERSION: Final = "2"
"""Part of the config digest: a change of the rules makes new generations."""

_LINE_ENDS: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
# The last two of every plane are noncharacters; only those of the first are met.
_DROPPED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]")

_MOST_MARKS: Final = 30


def clean(text: str) -> str:
    """The text by the rules of this module."""
    text = _LINE_ENDS.sub("\n", text)
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    text = _DROPPED.sub("", text)
    if text.isascii():
        return text
    text = _capped(text)
    normal = unicodedata.normalize("NFC", text)
    # Some marks fall apart into two, so that there may be more of them than before.
    return text if normal == text else _capped(normal)


def _capped(text: str) -> str:
    usual, rare, all_of_them = _marks()
    return (all_of_them if rare.search(text) else usual).sub(r"\1", text)


@cache
def _marks() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Too many marks of the first plane; where those of the second are; too many of both, which is ten times as slow. Marks are
    what has a combining class, and there are none beyond."""
    first, second = (
        "".join(character for character in map(chr, plane) if unicodedata.combining(character))
        for plane in (range(0x300, 0x10000), range(0x10000, 0x20000))
    )
    too_many = (f"([{marks}]{{{_MOST_MARKS}}})[{marks}]+" for marks in (first, first + second))
    return re.compile(next(too_many)), re.compile(f"[{second[0]}-{second[-1]}]"), re.compile(next(too_many))
