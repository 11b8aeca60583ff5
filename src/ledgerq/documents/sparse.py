"""Words as sparse vectors, so that Qdrant ranks by BM25: term weights are made here, inverse document frequencies by Qdrant
(`Modifier.IDF`). No network, no model, and the same at ingestion and at search.

A word is letters with their marks and digits, without variants (NFKC, case folded, Arabic and Hebrew without points), stemmed by
Snowball. A run of characters of a script without spaces (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese) counts as its
pairs, and in a document as its single characters too, so that a question may be one. A word's index is 32 bits of BLAKE2b: two
words of a million share one about once in 8,600 looks, which costs a little precision and nothing else.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import Stemmer

from ledgerq.errors import ConfigurationError

VERSION: Final = "2"
"""Part of the config digest: a change of the rules makes new generations."""

_ASCII_WORDS: Final = re.compile(r"[^\W_]+")
_WITHOUT_SPACES: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_RUNS: Final = re.compile(f"[{_WITHOUT_SPACES}]+")
_POINTS: Final = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u200c\u200d]"
)
"""Vowel points and the like, which hardly anybody writes in a question, and joiners, which are not seen."""
_STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be but by for from had has have he her his if in into is it its no not of on or our she such that
        the their then there these they this to was we were which will with you your""",
    )
)
"""Words that nearly every English text has. Their IDF is near nothing anyway; leaving them out makes vectors a third smaller."""
_STEMMERS: Final[str] = Stemmer.version()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - a C extension without types
_REMEMBERED: Final = 200_000
"""Words whose index is kept: about 20 MB."""
_LONGEST: Final = 64
"""Characters; what is longer is no word (base64, a hash) and is cut."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Values by index; indices are unique and ascending."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class Bm25:
    """Makes sparse vectors of chunks and of questions."""

    def __init__(self, *, language: str = "english", k: float = 1.2, b: float = 0.75, mean_words: float = 128.0) -> None:
        """`k` and `b` as in BM25. `mean_words` stands for the mean number of words of a chunk, which nobody knows before all
        chunks are there: it is what a chunk of 512 tokens of English has after its stop words are gone, with some chunks shorter.
        """
        self.name = f"bm25-{VERSION}:{language}-{_STEMMERS}:{k:g}:{b:g}:{mean_words:g}"
        """Two of the same name make the same vectors."""
        self._k, self._b, self._mean_words = k, b, mean_words
        self._stemmer: Any = _snowball(language)
        self._stemming = threading.Lock()  # a stemmer keeps the word it works on
        self._indices: dict[str, int] = {}

    def document(self, text: str) -> SparseVector:
        """BM25's term weights of a chunk: `tf (k+1) / (tf + k (1 - b + b words/mean))`."""
        counts = Counter(self._terms(words(text)))
        norm = self._k * (1 - self._b + self._b * counts.total() / self._mean_words)
        counts.update(self._terms(_single_characters(text)))
        return _vector({index: count * (self._k + 1) / (count + norm) for index, count in counts.items()})

    def query(self, text: str) -> SparseVector:
        """Each word of a question once, with weight 1."""
        return _vector(dict.fromkeys(self._terms(words(text)), 1.0))

    def _terms(self, terms: Iterable[str]) -> Iterator[int]:
        if len(self._indices) > _REMEMBERED:
            self._indices.clear()
        for word in terms:
            index = self._indices.get(word)
            if index is None:
                with self._stemming:
                    stem: str = self._stemmer.stemWord(word)
                index = self._indices[word] = _hash(stem)
            yield index


def _snowball(language: str) -> Any:
    try:
        return Stemmer.Stemmer(language)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - a C extension without types
    except KeyError as error:
        raise ConfigurationError(f"language of the words: {language!r} has no stemmer; known: {', '.join(Stemmer.algorithms())}") from error  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def words(text: str) -> Iterator[str]:
    """The words of a text as they are counted, before stemming."""
    for word in _ASCII_WORDS.findall(text.lower()) if text.isascii() else _words().findall(_folded(text)):
        if word.isascii():
            if word not in _STOP_WORDS:
                yield word[:_LONGEST]
        else:
            yield from _of_other_scripts(word)


def runs(text: str) -> Iterator[re.Match[str]]:
    """Stretches of a text in a script that is written without spaces."""
    return _RUNS.finditer(text)


def _folded(text: str) -> str:
    return _POINTS.sub("", unicodedata.normalize("NFKC", text).casefold()).replace("_", " ")


@cache
def _words() -> re.Pattern[str]:
    """A letter or digit, and more of them with the marks that stand on them: for `\\w` those are none of the word."""
    marks = "".join(mark for mark in map(chr, range(0x300, 0x10000)) if unicodedata.category(mark) in ("Mn", "Mc"))
    return re.compile(f"\\w[\\w{marks}]*")


def _single_characters(text: str) -> Iterator[str]:
    """Those of runs that `words` gives pairs of."""
    if not text.isascii():
        for run in _RUNS.finditer(_folded(text)):
            if len(run[0]) > 1:
                yield from run[0]


def _of_other_scripts(word: str) -> Iterator[str]:
    """A word, or the pairs of the characters in it that are written without spaces."""
    end = 0
    for run in _RUNS.finditer(word):
        if run.start() > end:
            yield word[end : run.start()][:_LONGEST]
        characters = run[0]
        yield from (characters[place : place + 2] for place in range(max(len(characters) - 1, 1)))
        end = run.end()
    if end < len(word):
        yield word[end:][:_LONGEST]


def _hash(stem: str) -> int:
    return int.from_bytes(blake2b(stem.encode(), digest_size=4).digest(), "big")


def _vector(weights: Mapping[int, float]) -> SparseVector:
    indices = tuple(sorted(weights))
    return SparseVector(indices, tuple(round(weights[index], 5) for index in indices))
