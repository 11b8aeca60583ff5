"""The part of a chunk to show for a query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ledgerq.documents.sparse import runs, words

LENGTH: Final = 240
_WORD: Final = re.compile(r"\S+")


def snippet_of(text: str, query: str, *, length: int = LENGTH) -> str:
    """About `length` characters on one line, from where the most different words of the query stand close together.

    Words are compared without their endings, by their first five letters. Dots mark what is left out.
    """
    if len(text) <= length:
        return " ".join(text.split())
    places = sorted(_places(text, set(words(query))))
    start = max((_worth(places, number, length), -place) for number, (place, _) in enumerate(places))[1] * -1 if places else 0
    return _cut(text, max(0, start - length // 6), length)


def _places(text: str, wanted: set[str]) -> Iterator[tuple[int, str]]:
    """Where words of the query stand; without spaces between words, by what the words are written with."""
    beginnings = {word[:5] for word in wanted if not any(runs(word))}
    for found in _WORD.finditer(text) if beginnings else ():
        yield from ((found.start(), key) for key in {word[:5] for word in words(found[0])} & beginnings)
    for key in wanted:
        if any(runs(key)):
            yield from ((found.start(), key) for found in re.finditer(re.escape(key), text, re.IGNORECASE))


def _worth(places: list[tuple[int, str]], first: int, length: int) -> int:
    """How many different words of the query are within `length` after that place."""
    end = places[first][0] + length * 5 // 6
    return len({key for place, key in places[first : first + 50] if place < end})


def _cut(text: str, start: int, length: int) -> str:
    """Whole words only."""
    start = min(start, max(0, len(text) - length))
    if start:
        start = text.find(" ", start, start + 40) + 1 or start
    end = start + length
    if end < len(text):
        space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
        end = space if space >= start + length // 2 else end
    inside = " ".join(text[start:end].split())
    return f"{'… ' if start else ''}{inside}{' …' if end < len(text) else ''}"
