"""Which loader a document needs: its bytes say first, then what it was declared as, then its name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from ledgerq.documents.load.encoding import charset_of, decode, is_text
from ledgerq.documents.load.model import HTML, MARKDOWN, PDF, PLAIN, Unreadable

_MAGIC: Final = tuple(
    (re.compile(magic, re.DOTALL), kind)
    for magic, kind in (
        (rb"PK\x03\x04", "a ZIP archive or an Office document"),
        (rb"PK\x05\x06", "an empty ZIP archive"),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
        (rb"\{\\rtf", "an RTF document"),
        (rb"\x89PNG\r\n", "a PNG picture"),
        (rb"\xff\xd8\xff", "a JPEG picture"),
        (rb"GIF8[79]a", "a GIF picture"),
        (rb"II\*\0", "a TIFF picture"),
        (rb"MM\0\*", "a TIFF picture"),
        (rb"RIFF....(?:WEBP|WAVE|AVI )", "a RIFF file (WebP, WAV or AVI)"),
        (rb"\x1f\x8b\x08", "a gzip file"),
        (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "a bzip2 file"),
        (rb"\xfd7zXZ\0", "an xz file"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (rb"\(\xb5/\xfd", "a Zstandard file"),
        (rb"\x7fELF", "a program"),
        (rb"SQLite format 3\0", "an SQLite database"),
        (rb"%!PS-Adobe-", "a PostScript document"),
    )
)
"""First bytes of what is met often and not read; from the formats' specifications. Whole signatures: prose may begin with `RIFF`."""

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

_BEFORE_PDF: Final = b"\xef\xbb\xbf\0\t\n\f\r "
_HTML_START: Final = re.compile(
    # Nothing is tried twice: what was taken for a comment or a space stays one.
    r"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


def sniff(data: bytes, *, declared: str | None, uri: str) -> str:
    """The content type to load as: PDF, HTML, Markdown or plain text.

    Raises:
        Unreadable: the bytes are of a kind that no loader reads.
    """
    if data[:1024].lstrip(_BEFORE_PDF).startswith(b"%PDF-"):
        return PDF
    kind = next((name for magic, name in _MAGIC if magic.match(data)), None)
    if kind is not None:
        raise Unreadable(f"is {kind}, which no loader reads")
    text = is_text(data, declared=charset_of(declared))
    # Its specification allows other bytes before the mark; a text that only speaks of it is none.
    if b"%PDF-" in data[:1024] and (not text or _media_type(declared) == PDF):
        return PDF
    if not text:
        raise Unreadable("is binary data of an unknown type")
    if _HTML_START.match(decode(data[:8192])):
        return HTML
    return _named_type(declared, uri)


def _named_type(declared: str | None, uri: str) -> str:
    """For bytes that are text. A suffix is only asked where the declaration is generic; text of any other kind is plain."""
    media_type = _media_type(declared)
    if media_type == PDF:
        raise Unreadable("is declared as a PDF document, but does not begin like one")
    if media_type in _GENERIC:
        return _SUFFIXES.get(PurePosixPath(_path_of(uri)).suffix.lower(), PLAIN)
    return _DECLARED.get(media_type, PLAIN)


def _media_type(declared: str | None) -> str:
    return (declared or "").split(";")[0].strip().lower()


def _path_of(uri: str) -> str:
    try:
        return urlsplit(uri).path
    except ValueError:  # such as `//[draft/notes.txt`, which is no address but may be a name
        return uri
