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
_BEYOND_ASCII: Final = bytes(range(128, 256))
_SAMPLE: Final = 64 * 1024


def decode(data: bytes, *, declared: str | None = None) -> str:
    """The text, by: a byte order mark; the zeros of UTF-16; UTF-8; the declared encoding; Windows-1252.

    UTF-8 goes before a declaration because text that is valid UTF-8 by accident is rarer than a wrong declaration. Single
    bytes that an encoding does not have become U+FFFD; one with many of them is not the text's. Windows-1252 takes anything.
    """
    marked = marked_encoding(data) or _utf16_by_zeros(data)
    if marked is not None:
        return data.decode(marked, errors="replace")
    known = _known(declared)
    text = _as_utf8(data, declared=known == "utf-8")
    if text is None and known is not None and known != "utf-8":
        text = _nearly(data, known)
    return data.decode("cp1252", errors="replace") if text is None else text


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def charset_of(content_type: str | None) -> str | None:
    """The `charset` of a content type such as `text/html; charset=iso-8859-2`."""
    found = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_:.-]+)", content_type or "", re.IGNORECASE)
    return found[1] if found else None


def declared_in_html(data: bytes) -> str | None:
    """The charset that an HTML page declares of itself in its first 2 KiB. It cannot be one in which that could not be read."""
    found = _DECLARED_IN_HTML.search(data[:2048])
    if found is None:
        return None
    name = (found[1] or found[2]).decode("ascii")
    return "utf-8" if name.lower().startswith(("utf-16", "utf-32")) else name


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
    known = _known(declared)
    return (
        _as_utf8(sample, declared=known == "utf-8") is not None
        or not _beyond_western(sample)
        or (known is not None and known != "utf-8" and _nearly(sample, known) is not None)
    )


_NOT_MEANT: Final = frozenset({"utf-7", "unicode_escape", "raw_unicode_escape", "punycode", "idna", "utf-16", "utf-32"})
"""Codecs that take nearly any bytes. UTF-16 and UTF-32 are known by their marks and zeros: without those, text is not in them."""
_MEANT: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
"""Names under which files have more than the names' standards: https://encoding.spec.whatwg.org/#names-and-labels"""


def _known(name: str | None) -> str | None:
    """The codec that is meant by that name, if there is one that a document may be in."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return None if found.removesuffix("-le").removesuffix("-be") in _NOT_MEANT else _MEANT.get(found, found)


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


def _as_utf8(data: bytes, *, declared: bool) -> str | None:
    """The text, if it is UTF-8 but for a few bytes: at least four in five of those beyond ASCII belong to characters, or half
    of them in what is declared so. In text of another encoding hardly any do."""
    text = data.decode(errors="replace")
    invalid = text.count("\ufffd") - data.count("\ufffd".encode())
    beyond_ascii = len(data) - len(data.translate(None, _BEYOND_ASCII)) if invalid else 0
    return text if invalid * (2 if declared else 5) <= beyond_ascii else None


def _beyond_western(sample: bytes) -> bool:
    """Whether more than one byte in 200 is none that Windows-1252 defines: compressed or encrypted bytes have four times that."""
    return sum(sample.count(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)) * 200 > len(sample)


def _nearly(data: bytes, encoding: str) -> str | None:
    """The text, if no more than one byte in 50 is none of that encoding."""
    try:
        text = data.decode(encoding, errors="replace")
    except (UnicodeError, LookupError, ValueError):
        return None
    return text if text.count("\ufffd") * 50 <= max(len(text), 50) else None
