"""PDF: pypdf guards, decrypts and reads the metadata; PDFium reads the text. Runs in the parser process.

pypdf has limits and is slow and loses spaces; PDFium is fast and exact and has no limits. So pypdf first decodes what
each page draws, under limits, and only then PDFium sees the bytes. What slips past both is stopped by the limits on the
process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pypdf
import pypdfium2
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError, PyPdfError

from ledgerq.documents.clean import clean
from ledgerq.documents.load.model import PDF, Loaded, LoadLimits, Scalar, Segment, Unreadable

_HYPHENATED: Final = re.compile("[\x02\ufffe]\r?\n?")
"""PDFium's mark for a hyphen that only the line's end put there."""
_PRIVATE: Final = re.compile("[\ue000-\uf8ff]")
"""Glyphs without a meaning outside of their font."""
_DECODED_AT_MOST: Final = 256 * 1024 * 1024
"""Bytes that the contents of all pages may decode to: 80 times a dense book."""
_INFORMATION: Final = ("Title", "Author", "Subject", "Keywords", "CreationDate")


_DAMAGED: Final = (
    PyPdfError,
    DependencyError,  # a cipher that is not installed here; PDFium has its own
    zlib.error,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    ArithmeticError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True)
class Heading:
    """An entry of the document's outline."""

    page: int
    """Counted from 0."""
    title: str


def load_pdf(data: bytes, limits: LoadLimits) -> Loaded:
    """One segment per page, or more where the outline has headings on it.

    Raises:
        Unreadable: encrypted, broken, over a limit, or without a text layer.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every font and every repair
    information = guard(data, limits)
    pages, outline = _read(data, limits)
    if not any(character.isalnum() for page in pages for character in page):
        raise Unreadable(f"no text layer on any of its {len(pages)} pages: they are pictures, and OCR is needed")
    metadata: dict[str, Scalar] = {key.lower(): value for key, value in information.items()}
    metadata["pages"] = len(pages)
    metadata["pages_without_text"] = sum(1 for page in pages if not page.strip())
    text, segments = _joined(pages, outline)
    return Loaded(text=text, segments=segments, content_type=PDF, title=information.get("Title"), metadata=metadata)


def guard(data: bytes, limits: LoadLimits) -> dict[str, str]:
    """Refuse bombs, locked files and too many pages; otherwise give the document's information.

    Damage that pypdf cannot repair is left to PDFium, which repairs more.
    """
    budget = min(_DECODED_AT_MOST, limits.memory_bytes // 4)
    try:
        with pypdf.apply_configuration(stream_parsing_work_maximum_count=200_000):
            return _guarded(pypdf.PdfReader(io.BytesIO(data)), limits, budget)
    except LimitReachedError as error:
        raise Unreadable(f"is over a limit of the PDF guard: {error}") from error
    except FileNotDecryptedError as error:
        raise Unreadable("is encrypted and needs a password") from error
    except _DAMAGED:
        return {}


def _guarded(reader: pypdf.PdfReader, limits: LoadLimits, budget: int) -> dict[str, str]:
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("is encrypted and needs a password")
    count = len(reader.pages)
    if count > limits.max_pages:
        raise Unreadable(f"has {count:,} pages; the limit is {limits.max_pages:,}")
    decoded = 0
    for page in reader.pages:
        contents = page.get_contents()
        decoded += 0 if contents is None else len(contents.get_data())
        if decoded > budget:
            raise Unreadable(f"decodes to more than {budget // 2**20} MiB of page contents")
    return dict(_information(reader))


def _information(reader: pypdf.PdfReader) -> Iterator[tuple[str, str]]:
    known: Any = reader.metadata or {}
    for key in _INFORMATION:
        words = " ".join(clean(str(known.get(f"/{key}") or "")).split())[:1_000]
        if words:
            yield key, words


def _read(data: bytes, limits: LoadLimits) -> tuple[list[str], list[Heading]]:
    try:
        document: Any = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Unreadable("is encrypted and needs a password" if "password" in str(error).lower() else f"is broken: {error}") from error
    try:
        return list(_pages(document, limits)), list(_outline(document))
    finally:
        document.close()


def _pages(document: Any, limits: LoadLimits) -> Iterator[str]:
    count = len(document)
    if count == 0:
        raise Unreadable("has no pages")
    if count > limits.max_pages:
        raise Unreadable(f"has {count:,} pages; the limit is {limits.max_pages:,}")
    characters = 0
    for number in range(count):
        text = _page_text(document, number)
        characters += len(text)
        if characters > limits.max_characters:
            raise Unreadable(f"has more than {limits.max_characters:,} characters of text")
        yield text


def _page_text(document: Any, number: int) -> str:
    raw = ""
    # One damaged page is no reason to lose the others; it is counted as a page without text.
    with (
        contextlib.suppress(pypdfium2.PdfiumError),
        contextlib.closing(document[number]) as page,
        contextlib.closing(page.get_textpage()) as text_page,
    ):
        raw = text_page.get_text_bounded()
    return clean(_PRIVATE.sub("", _HYPHENATED.sub("", raw))).strip("\n")


def _outline(document: Any) -> Iterator[Heading]:
    for bookmark in document.get_toc(max_depth=8):
        destination = bookmark.get_dest()
        page = destination.get_index() if destination is not None else None
        title = " ".join(clean(bookmark.get_title() or "").split())
        if page is not None and title:
            yield Heading(page, title)


def _joined(pages: list[str], outline: list[Heading]) -> tuple[str, tuple[Segment, ...]]:
    """The pages with a blank line between them, and where each page and heading begins."""
    by_page: dict[int, list[str]] = {}
    for entry in outline:
        by_page.setdefault(entry.page, []).append(entry.title)
    marks: list[tuple[int, int, str | None]] = []
    offset, heading = 0, None
    for number, page in enumerate(pages):
        marks.append((offset, number + 1, heading))
        for place, title in _places(page, by_page.get(number, [])):
            heading = title
            marks.append((offset + place, number + 1, heading))
        offset += len(page) + 2
    text = "\n\n".join(pages)
    ends = [start for start, _, _ in marks[1:]] + [len(text)]
    return text, tuple(
        Segment(start=start, end=end, page=page, heading=title)
        for (start, page, title), end in zip(marks, ends, strict=True)
        if end > start
    )


def _places(page: str, titles: list[str]) -> Iterator[tuple[int, str]]:
    """Where on the page each heading stands, in order; at the one before (or the top) when its words are not found."""
    place = 0
    for title in titles:
        words = r"\s+".join(re.escape(word) for word in title.split())
        found = re.compile(words, re.IGNORECASE).search(page, place)
        place = found.start() if found else place
        yield place, title
