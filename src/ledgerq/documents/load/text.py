"""Plain text."""

from __future__ import annotations

from typing import Final

from ledgerq.documents.clean import clean
from ledgerq.documents.load.encoding import charset_of, decode
from ledgerq.documents.load.model import PLAIN, Loaded, Segment

VERSION: Final = "2"


def load_text(data: bytes, *, declared: str | None = None) -> Loaded:
    """The whole file as one segment."""
    text = clean(decode(data, declared=charset_of(declared)))
    return Loaded(text=text, segments=(Segment(start=0, end=len(text)),) if text else (), content_type=PLAIN)
