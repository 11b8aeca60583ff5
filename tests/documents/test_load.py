"""Loading: text, pages, headings and titles of each type, and what can never be loaded, by name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pypdfium2
import pytest
from pypdf.errors import DependencyError

from ledgerq.documents.load import EmptyDocument, Loaded, Loader, LoadLimits, loader_versions
from ledgerq.documents.load.pdf import load_pdf
from ledgerq.errors import DocumentError
from tests.documents.pdfs import encrypted, pdf

PAGE = """<!doctype html><html><head><title> Wing  loads </title><script>var x = 'no';</script></head><body>
<nav>Home Products About</nav><header>Site name</header>
<main><h1>Wing <a href="/x">loads</a></h1><p>First <b>bold</b> paragraph with snake_case_name and 2 * 3 * 4.</p>
<h2>Flutter</h2><pre><code>def f():
    return 1</code></pre><ul><li>one</li><li>two</li></ul>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></main>
<footer>Imprint</footer></body></html>"""


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


def headings(loaded: Loaded) -> list[tuple[str | None, str]]:
    return [(part.heading, loaded.text[part.start : part.end].strip().split("\n")[0]) for part in loaded.segments]


def assert_segments_cover(loaded: Loaded) -> None:
    assert loaded.segments[0].start == 0
    assert loaded.segments[-1].end == len(loaded.text)
    assert all(one.end == other.start for one, other in pairwise(loaded.segments))


def test_plain_text_is_one_segment(loader: Loader) -> None:
    loaded = loader.load("One\r\ntwo.\0".encode("utf-16"), uri="a.txt")
    assert loaded.text == "One\ntwo."
    assert loaded.content_type == "text/plain"
    assert [(part.start, part.end, part.page, part.heading) for part in loaded.segments] == [(0, 8, None, None)]


def test_markdown_keeps_its_marks_and_knows_its_headings(loader: Loader) -> None:
    source = (
        "intro\n\n# The *main* `thing`\n\ntext\n\n```sh\n# no heading\n```\n\nUnder\n=====\nx\n\n- item\n---\n## [Link](http://x) ##\ny"
    )
    loaded = loader.load(source.encode(), uri="a.md")
    assert loaded.text == source
    assert loaded.title == "The main thing"
    assert [heading for heading, _ in headings(loaded)] == [None, "The main thing", "Under", "Link"]
    assert_segments_cover(loaded)


def test_front_matter_gives_the_title_and_is_not_text(loader: Loader) -> None:
    loaded = loader.load(b"---\ntitle: 'Given'\ntags: [a]\n---\n# Other\n\nbody", uri="a.md")
    assert loaded.title == "Given"
    assert loaded.text == "# Other\n\nbody"


def test_html_becomes_markdown_of_its_main_part(loader: Loader) -> None:
    loaded = loader.load(PAGE.encode(), uri="https://example.org/wing")
    assert loaded.title == "Wing loads"
    assert loaded.text.startswith("# Wing loads\n\nFirst **bold** paragraph with snake_case_name and 2 * 3 * 4.\n\n## Flutter")
    assert "def f():\n    return 1\n```" in loaded.text
    assert "| 1 | 2 |" in loaded.text
    assert not any(word in loaded.text for word in ("Home", "Site name", "Imprint", "var x"))
    assert [heading for heading, _ in headings(loaded)] == ["Wing loads", "Flutter"]
    assert_segments_cover(loaded)


@pytest.mark.parametrize(
    ("text", "title", "kept"),
    [
        ("---\nAfter a rule comes prose.\n\n---\nMore.", None, "---\nAfter a rule comes prose.\n\n---\nMore."),
        ("---\n\ntitle: x\n---\nMore.", None, "---\n\ntitle: x\n---\nMore."),
        ("---\n---\nMore.", None, "---\n---\nMore."),
        ("---\n- only\n- a list\n---\nMore.", None, "---\n- only\n- a list\n---\nMore."),
        ("---\ntitle: never closed\n", None, "---\ntitle: never closed\n"),
        ("---\n# why\ntitle: A\n\ntags:\n- one\n- two\nabout: >\n  folded\n...\nMore.", "A", "More."),
    ],
)
def test_front_matter_looks_like_yaml(loader: Loader, text: str, title: str | None, kept: str) -> None:
    loaded = loader.load(text.encode(), uri="a.md")
    assert loaded.text == kept
    assert title in (None, loaded.title)


def test_code_begins_and_ends_where_markdown_says(loader: Loader) -> None:
    source = "```one line```\n\n# One\n\n````md\n```\n# none\n```\n````\n\n# Two\n\n~~~ a`b\n# none\n~~~\n# Three\n"
    loaded = loader.load(source.encode(), uri="a.md")
    assert [heading for heading, _ in headings(loaded)] == [None, "One", "Two", "Three"]


def test_endless_titles_and_headings_are_shortened(loader: Loader) -> None:
    endless = "words without end " * 10_000
    for data, uri in (
        (f"# {endless}\n\ntext", "a.md"),
        (f"---\ntitle: {endless}\n---\n# {endless}\n", "a.md"),
        (f"<html><title>{endless}</title><body><h2>{endless}", "a.html"),
    ):
        loaded = loader.load(data.encode(), uri=uri)
        names = [loaded.title, *(part.heading for part in loaded.segments)]
        assert {len(name) for name in names if name} == {300}
        assert len(loaded.text) > 100_000


def test_one_damaged_page_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(page: pypdfium2.PdfPage) -> pypdfium2.PdfTextPage:
        if page.get_width() == 100:
            raise pypdfium2.PdfiumError("Failed to load text page.")
        return readable(page)

    data = pdf(["good words", "lost words"])
    document = pypdfium2.PdfDocument(data)
    document[1].set_mediabox(0, 0, 100, 100)
    saved = io.BytesIO()
    document.save(saved)
    readable = pypdfium2.PdfPage.get_textpage
    monkeypatch.setattr(pypdfium2.PdfPage, "get_textpage", broken)
    loaded = load_pdf(saved.getvalue(), LoadLimits())
    assert loaded.text.strip() == "good words"
    assert loaded.metadata["pages_without_text"] == 1


@pytest.mark.parametrize("error", [DependencyError("no cipher"), struct.error("short"), zlib.error("bad")])
def test_what_the_pdf_guard_stumbles_over_is_left_to_pdfium(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def stumble(*_: object) -> None:
        raise error

    monkeypatch.setattr("ledgerq.documents.load.pdf._guarded", stumble)
    assert load_pdf(pdf(["words"]), LoadLimits()).text == "words"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<html><body hidden><p>a</p><p>b</p></body></html>", "a\n\nb"),
        ("<html hidden><body><p>a</p><p>b</p></body></html>", "a\n\nb"),
        ("<html><body><main hidden><p>a</p><p>b</p></main></body></html>", "a\n\nb"),
        ("<html><body><p>a</p><div hidden=until-found><p>b</p></div></body></html>", "a\n\nb"),
        ("<html><body><div hidden>all of it</div><script>none</script></body></html>", "all of it"),
        (f"<html><body><p>above</p>{'<div>' * 3_000}far below it", "above\nfar below it"),
        (f"<html><body><p>above</p>{'<table><tr><td>' * 300}far below it", "above\nfar below it"),
    ],
)
def test_html_that_hides_or_buries_its_text_is_read(loader: Loader, html: str, text: str) -> None:
    assert loader.load(html.encode(), uri="a.html").text == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<html><body><header><h1>T</h1></header><aside>ad</aside><p>x</p><footer>f</footer></body></html>", "# T\n\nx"),
        ("<html><body><article>small</article><p>" + "much more text outside of it " * 3 + "</p></body></html>", "small"),
        ("<html><body><p>a</p><div hidden>b</div><p>c</p></body></html>", "a\n\nc"),
    ],
)
def test_html_loses_rather_too_little(loader: Loader, html: str, text: str) -> None:
    assert loader.load(html.encode(), uri="a.html").text.startswith(text)


def test_html_in_the_encoding_that_it_declares(loader: Loader) -> None:
    page = '<html><head><meta charset="koi8-r"></head><body><p>русский текст</p></body></html>'
    assert loader.load(page.encode("koi8-r"), uri="a.html").text == "русский текст"


def test_pdf_has_pages_and_the_headings_of_its_outline(loader: Loader) -> None:
    pages = ["Preface\nWords before.", "Middle of it\nFlutter\nText on flutter.", "More on flutter."]
    loaded = loader.load(pdf(pages, title="Wings", outline=[(0, "Preface"), (1, "Flutter")]), uri="a.pdf")
    assert loaded.title == "Wings"
    assert loaded.metadata["pages"] == 3
    found = [(part.page, part.heading, loaded.text[part.start : part.end].strip()) for part in loaded.segments]
    assert found == [
        (1, "Preface", "Preface\nWords before."),
        (2, "Preface", "Middle of it"),
        (2, "Flutter", "Flutter\nText on flutter."),
        (3, "Flutter", "More on flutter."),
    ]
    assert_segments_cover(loaded)


def test_pdf_pages_without_text_are_counted(loader: Loader) -> None:
    loaded = loader.load(pdf(["", "words", ""]), uri="a.pdf")
    assert loaded.text.strip() == "words"
    assert (loaded.metadata["pages"], loaded.metadata["pages_without_text"]) == (3, 2)
    assert [part.page for part in loaded.segments if "words" in loaded.text[part.start : part.end]] == [2]


def test_a_pdf_that_only_its_owner_may_change_is_read(loader: Loader) -> None:
    assert loader.load(encrypted(pdf(["open words"]), password=""), uri="a.pdf").text == "open words"


@pytest.mark.parametrize(
    ("data", "uri", "why"),
    [
        (encrypted(pdf(["secret"]), password="x"), "locked.pdf", "is encrypted and needs a password"),
        (pdf(["", ""]), "scan.pdf", "no text layer on any of its 2 pages.*OCR is needed"),
        (b"%PDF-1.7\nnothing of it", "broken.pdf", "is broken"),
        (pdf(["x"])[:300], "cut.pdf", "is broken|has no pages"),
        (b"\x00\x01\x02\xff" * 400, "x.bin", "binary data of an unknown type"),
        (b"PK\x03\x04" + b"\0" * 40, "book.docx", "ZIP archive or an Office document"),
    ],
)
def test_what_can_never_be_loaded_says_which_and_why(loader: Loader, data: bytes, uri: str, why: str) -> None:
    with pytest.raises(DocumentError, match=f"^{uri}: .*({why})") as caught:
        loader.load(data, uri=uri)
    assert not isinstance(caught.value, EmptyDocument)


@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"<html><body><script>1</script></body></html>", b"<html></html>"])
def test_a_document_without_text_is_empty(loader: Loader, data: bytes) -> None:
    with pytest.raises(EmptyDocument, match=r"^empty\.html: "):
        loader.load(data, uri="empty.html")


def test_limits_on_bytes_characters_and_pages() -> None:
    loader = Loader(LoadLimits(max_bytes=5_000, max_characters=1_000, max_pages=2))
    try:
        with pytest.raises(DocumentError, match=r"a\.txt: has 5,001 bytes; the limit is 5,000"):
            loader.load(b"x" * 5_001, uri="a.txt")
        for data, uri in (
            (b"x" * 1_001, "a.txt"),
            (b"<html><body>" + b"x " * 600, "a.html"),
            (pdf(["\n".join(["word " * 10] * 25)]), "a.pdf"),
        ):
            with pytest.raises(DocumentError, match=r"1,\d{3} characters|more than 1,000 characters"):
                loader.load(data, uri=uri)
        with pytest.raises(DocumentError, match=r"a\.pdf: has 3 pages; the limit is 2"):
            loader.load(pdf(["a", "b", "c"]), uri="a.pdf")
    finally:
        loader.close()


def test_versions_name_the_parsers() -> None:
    versions = loader_versions()
    assert {"clean", "html", "pdf", "pypdfium2", "selectolax"} <= versions.keys()
    assert all(versions.values())
