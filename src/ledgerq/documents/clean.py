"""Makes text safe to store, hash and count by, once, before any offset into it is taken.

In this order: line ends of every kind become `\\n`; lone surrogates become U+FFFD; NUL, other control characters, byte
order marks, zero width spaces, soft hyphens and noncharacters go; what is left is put into Unicode's form NFC. Cleaning
clean text changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

VERSION: Final = "1"
"""Part of the config digest: a change of the rules makes new generations."""

_LINE_ENDS: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
# The last two of every plane are noncharacters; only those of the first are met.
_DROPPED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: str) -> str:
    """The text by the rules of this module."""
    text = _LINE_ENDS.sub("\n", text)
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    text = _DROPPED.sub("", text)
    return unicodedata.normalize("NFC", text)
