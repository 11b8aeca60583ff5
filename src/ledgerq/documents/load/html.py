"""HTML, as Markdown: the page's main part, without what surrounds it. Runs in the parser process."""

from __future__ import annotations

import re
from typing import Final

from html_to_markdown import CodeBlockStyle, ConversionOptions, PreprocessingOptions, convert
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from ledgerq.documents.clean import clean
from ledgerq.documents.load.encoding import charset_of, declared_in_html, decode
from ledgerq.documents.load.markdown import with_headings
from ledgerq.documents.load.model import HTML, Loaded

_NOISE: Final = (
    "script, style, noscript, template, svg, canvas, iframe, object, embed, button, select, input, textarea, dialog, "
    "[hidden]:not([hidden=until-found]), nav, [role=navigation], [role=search], .navheader, .navfooter"
)
"""Never text of the page. The last two are DocBook's."""
_KEPT: Final = frozenset({"html", "body", "main", "article"})
"""Hold the text also when a page hides them until its scripts have run."""
_NO_WORD: Final = re.compile(r"[\W_]+")
_CODE: Final = "script, style, template"
_AROUND: Final = "header, footer, aside, [role=banner], [role=contentinfo], [role=complementary]"
"""Around the text when they are outside of its container; inside, an article's header holds its title."""
_CONTAINERS: Final = (
    "main",
    "[role=main]",
    "article",
    "#main-content",
    "#content",
    "#main",
    ".markdown-body",
    ".post-content",
    ".entry-content",
    ".main-content",
)
_LEAST_SHARE: Final = 0.5
"""A container with less of the page's text than this is not the page's text: rather too much than too little."""


def load_html(data: bytes, *, declared: str | None = None) -> Loaded:
    """One segment per heading; the title is the page's, or its first heading."""
    html = decode(data, declared=charset_of(declared) or declared_in_html(data))
    page = _parsed(html)
    title = page.css_first("title")
    name = clean(" ".join(title.text().split())) if title is not None else ""
    if page.body is None:
        return Loaded(text="", content_type=HTML)
    for node in page.css(_NOISE):
        if node.tag not in _KEPT:
            node.decompose()
    for node in page.css("[hidden]"):
        del node.attrs["hidden"]  # the conversion would leave it out
    main = _container(page.body)
    text = clean(_as_markdown(main)).strip()
    words = main.text(separator="\n")
    if _size(text) < _size(words) * _LEAST_SHARE:  # nested deeper than the conversion goes
        text = clean(words).strip()
    if not text:
        text = clean(_all_text(html)).strip()
    return with_headings(text, content_type=HTML, title=name or None)


def _as_markdown(main: LexborNode) -> str:
    main.unwrap_tags(["a", "span"])
    # Underscores and asterisks in running text are rarely meant as marks, and escaping them breaks the words.
    options = ConversionOptions(
        extract_metadata=False,
        skip_images=True,
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        code_block_style=CodeBlockStyle.BACKTICKS,
        preprocessing=PreprocessingOptions(enabled=False),  # what is around is gone already
    )
    return convert(main.html or "", options).content or ""


def _all_text(html: str) -> str:
    """What a page says that has no text besides what is taken for noise."""
    page = _parsed(html)
    for node in page.css(_CODE):
        node.decompose()
    return "" if page.body is None else page.body.text(separator="\n")


def _size(text: str) -> int:
    return len(_NO_WORD.sub("", text))


def _parsed(html: str) -> LexborHTMLParser:
    try:
        return LexborHTMLParser(html)
    except SelectolaxError as error:
        raise MemoryError from error  # there is no HTML that its parser refuses; it fails when it gets no memory


def _container(body: LexborNode) -> LexborNode:
    """The first of the known containers that holds most of the text; without one, the body less what is around."""
    whole = len(body.text())
    for selector in _CONTAINERS:
        nodes = body.css(selector)
        largest = max(nodes, key=lambda node: len(node.text()), default=None)
        if largest is not None and len(largest.text()) >= whole * _LEAST_SHARE:
            return largest
    for node in body.css(_AROUND):
        if node.css_first("h1") is None:
            node.decompose()
    return body
