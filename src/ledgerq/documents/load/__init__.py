"""Loading: from the bytes of a document to clean text with pages and headings.

PDF and HTML are parsed in a process of their own, which may be killed. Plain text and Markdown are read here: every step on them
takes time in proportion to their length, whatever is in them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from ledgerq.documents import clean
from ledgerq.documents.load import markdown, text
from ledgerq.documents.load.model import HTML, MARKDOWN, PDF, EmptyDocument, Loaded, LoadLimits, Segment, Unreadable
from ledgerq.documents.load.sandbox import Sandbox
from ledgerq.documents.load.sniff import sniff
from ledgerq.errors import DocumentError

__all__ = ["EmptyDocument", "LoadLimits", "Loaded", "Loader", "Segment", "loader_versions"]

_PARSERS: Final = ("pypdfium2", "pypdf", "selectolax", "html-to-markdown")
_HTML_VERSION: Final = "2"
_PDF_VERSION: Final = "2"


class Loader:
    """Loads documents of every known type. Close it to end its parser process; see `Sandbox` about threads."""

    def __init__(self, limits: LoadLimits | None = None) -> None:
        self.limits = limits or LoadLimits()
        self._sandbox = Sandbox(self.limits)

    def load(self, data: bytes, *, uri: str, content_type: str | None = None) -> Loaded:
        """The document's text, by the type that its bytes, `content_type` and the suffix of `uri` say, in this order.

        Raises:
            EmptyDocument: there is no text in it.
            DocumentError: it can never be loaded as it is; the message begins with `uri` and says why.
            OSError: the parser process cannot be started now.
        """
        if not data:
            raise EmptyDocument(f"{uri}: is empty")
        try:
            loaded = self._load(data, uri, content_type)
        except Unreadable as reason:
            raise DocumentError(f"{uri}: {reason}") from reason
        if not loaded.text.strip():
            raise EmptyDocument(f"{uri}: has no text")
        return loaded

    def close(self) -> None:
        """End the parser process. The loader may be used again."""
        self._sandbox.close()

    def _load(self, data: bytes, uri: str, declared: str | None) -> Loaded:
        if len(data) > self.limits.max_bytes:
            raise Unreadable(f"has {len(data):,} bytes; the limit is {self.limits.max_bytes:,}")
        kind = sniff(data, declared=declared, uri=uri)
        if kind == PDF:
            return self._sandbox.load("pdf", data, declared=declared)
        if kind == HTML:
            return self._sandbox.load("html", data, declared=declared)
        loaded = markdown.load_markdown(data, declared=declared) if kind == MARKDOWN else text.load_text(data, declared=declared)
        if len(loaded.text) > self.limits.max_characters:
            raise Unreadable(f"has {len(loaded.text):,} characters; the limit is {self.limits.max_characters:,}")
        return loaded


def loader_versions() -> dict[str, str]:
    """What the text of a document depends on besides its bytes: our rules and the parsers' releases."""
    ours = {"clean": clean.VERSION, "text": text.VERSION, "markdown": markdown.VERSION, "html": _HTML_VERSION, "pdf": _PDF_VERSION}
    return ours | {name: _release(name) for name in _PARSERS}


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
