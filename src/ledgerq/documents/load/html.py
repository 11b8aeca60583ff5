"""HTML, as Markdown: the page's main part, without what surrounds it. Runs in the parser process."""

from __future__ import annotations

from typing import Final

from html_to_markdown import CodeBlockStyle, ConversionOptions, PreprocessingOptions, convert
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from ledgerq.documents.clean import clean
from ledgerq.documents.load.encoding import charset_of, declared_in_html, decode
from ledgerq.documents.load.markdown import with_headings
from ledgerq.documents.load.model import HTML, Loaded

_NOISE: Final = (
    "script, style, noscript, template, svg, canvas, iframe, object, embed, button, select, input, textarea, dialog, [hidden], "
    "nav, [role=navigation], [role=search], .navheader, .navfooter"
)
"""Never text of the page. The last two are DocBook's."""
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
    page = _parsed(decode(data, declared=charset_of(declared) or declared_in_html(data)))
    title = page.css_first("title")
    body = page.body
    if body is None:
        return Loaded(text="", content_type=HTML)
    for node in page.css(_NOISE):
        node.decompose()
    main = _container(body)
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
    text = clean(convert(main.html or "", options).content or "").strip()
    name = " ".join(title.text().split()) if title is not None else ""
    return with_headings(text, content_type=HTML, title=clean(name) or None)


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
