"""From bytes to text when nobody says for sure which encoding they are in."""

from __future__ import annotations

import codecs
import re
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32 stands before UTF-16: its little-endian mark begins with UTF-16's."""
_DECLARED_IN_HTML: Final = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})|<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_:.-]{2,40})""",
    re.IGNORECASE,
)
_CONTROL: Final = bytes(set(range(32)) - {9, 10, 12, 13, 27})
_SAMPLE: Final = 64 * 1024


def decode(data: bytes, *, declared: str | None = None) -> str:
    """The text, by: a byte order mark; the zeros of UTF-16; strict UTF-8; the declared encoding; Windows-1252.

    UTF-8 goes before a declaration because text that is valid UTF-8 by accident is rarer than a wrong declaration.
    Windows-1252 takes anything: bytes that it does not define become U+FFFD.
    """
    marked = marked_encoding(data)
    if marked is not None:
        return data.decode(marked, errors="replace")
    for encoding in (_utf16_by_zeros(data), "utf-8", _known(declared)):
        if encoding is not None:
            try:
                return data.decode(encoding)
            except (UnicodeError, LookupError, ValueError):
                continue
    return data.decode("cp1252", errors="replace")


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def charset_of(content_type: str | None) -> str | None:
    """The `charset` of a content type such as `text/html; charset=iso-8859-2`."""
    found = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_:.-]+)", content_type or "", re.IGNORECASE)
    return found[1] if found else None


def declared_in_html(data: bytes) -> str | None:
    """The charset that an HTML page declares of itself in its first 2 KiB."""
    found = _DECLARED_IN_HTML.search(data[:2048])
    return (found[1] or found[2]).decode("ascii") if found else None


def is_text(data: bytes, *, declared: str | None = None) -> bool:
    """Whether the bytes look like text in some encoding: no NUL outside of UTF-16 and UTF-32, few control characters."""
    if marked_encoding(data) is not None or _utf16_by_zeros(data) is not None:
        return True
    sample = data[:_SAMPLE]
    if b"\0" in sample:
        return False
    controls = len(sample) - len(sample.translate(None, _CONTROL))
    if controls * 50 > len(sample):
        return False
    return _is_utf8(sample) or not _beyond_western(sample) or _decodes(data, _known(declared))


_NOT_MEANT: Final = frozenset({"utf-7", "unicode_escape", "raw_unicode_escape", "punycode", "idna"})
"""Codecs that take nearly any bytes and that no document is written in."""


def _known(name: str | None) -> str | None:
    """The codec of that name, if there is one that a document may be in."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return None if found in _NOT_MEANT else found


def _utf16_by_zeros(data: bytes) -> str | None:
    """UTF-16 without a mark: Western text in it has a zero in every second byte, on one side only."""
    sample = data[: _SAMPLE // 2 * 2]
    if len(sample) < 4 or len(data) % 2:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd * 10 >= half * 7 and even * 20 <= half:
        return "utf-16-le"
    return "utf-16-be" if even * 10 >= half * 7 and odd * 20 <= half else None


def _is_utf8(sample: bytes) -> bool:
    """Whether it is UTF-8, allowing for a character that the end of the sample cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _beyond_western(sample: bytes) -> bool:
    """Whether more than one byte in 200 is none that Windows-1252 defines: compressed or encrypted bytes have four times that."""
    return sum(sample.count(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)) * 200 > len(sample)


def _decodes(data: bytes, encoding: str | None) -> bool:
    try:
        data.decode(encoding or "")
    except (UnicodeError, LookupError, ValueError):
        return False
    return True
