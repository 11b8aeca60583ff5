"""Which loader a document needs: its bytes say first, then what it was declared as, then its name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from ledgerq.documents.load.encoding import charset_of, decode, is_text
from ledgerq.documents.load.model import HTML, MARKDOWN, PDF, PLAIN, Unreadable

_MAGIC: Final = (
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"(\xb5/\xfd", "a Zstandard file"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%!PS", "a PostScript document"),
)
"""First bytes of what is met often and not read; from the formats' specifications."""

_SUFFIXES: Final = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".mdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".txt": PLAIN,
}
_DECLARED: Final = {
    "text/markdown": MARKDOWN,
    "text/x-markdown": MARKDOWN,
    "text/html": HTML,
    "application/xhtml+xml": HTML,
}
_GENERIC: Final = frozenset({"", PLAIN, "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"})
"""Declarations that say nothing: servers and browsers send them for what they don't know."""

_HTML_START: Final = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)


def sniff(data: bytes, *, declared: str | None, uri: str) -> str:
    """The content type to load as: PDF, HTML, Markdown or plain text.

    Raises:
        Unreadable: the bytes are of a kind that no loader reads.
    """
    if b"%PDF-" in data[:1024]:
        return PDF
    kind = next((name for magic, name in _MAGIC if data.startswith(magic)), None)
    if kind is not None:
        raise Unreadable(f"is {kind}, which no loader reads")
    if not is_text(data, declared=charset_of(declared)):
        raise Unreadable("is binary data of an unknown type")
    if _HTML_START.match(decode(data[:2048])):
        return HTML
    return _named_type(declared, uri)


def _named_type(declared: str | None, uri: str) -> str:
    """For bytes that are text. A suffix is only asked where the declaration is generic; text of any other kind is plain."""
    media_type = (declared or "").split(";")[0].strip().lower()
    if media_type == PDF:
        raise Unreadable("is declared as a PDF document, but does not begin like one")
    if media_type in _GENERIC:
        return _SUFFIXES.get(PurePosixPath(urlsplit(uri).path).suffix.lower(), PLAIN)
    return _DECLARED.get(media_type, PLAIN)
