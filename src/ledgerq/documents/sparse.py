"""Words as sparse vectors, so that Qdrant ranks by BM25: term weights are made here, inverse document frequencies by Qdrant
(`Modifier.IDF`). No network, no model, and the same at ingestion and at search.

A word is letters and digits without accents' variants (NFKC, case folded), stemmed by Snowball; a run of Chinese, Japanese or
Korean characters counts as its pairs. Its index is 32 bits of BLAKE2b: two words of a million share one about once in 8,600
looks, which costs a little precision and nothing else.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import Stemmer

from ledgerq.errors import ConfigurationError

VERSION: Final = "1"
"""Part of the config digest: a change of the rules makes new generations."""

_WORDS: Final = re.compile(r"[^\W_]+")
_EAST_ASIAN: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be but by for from had has have he her his if in into is it its no not of on or our she such that
        the their then there these they this to was we were which will with you your""",
    )
)
"""Words that nearly every English text has. Their IDF is near nothing anyway; leaving them out makes vectors a third smaller."""
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
        self.name = f"bm25-{VERSION}:{language}:{k:g}:{b:g}:{mean_words:g}"
        """Two of the same name make the same vectors."""
        self._k, self._b, self._mean_words = k, b, mean_words
        self._stemmer: Any = _snowball(language)
        self._stemming = threading.Lock()  # a stemmer keeps the word it works on
        self._indices: dict[str, int] = {}

    def document(self, text: str) -> SparseVector:
        """BM25's term weights of a chunk: `tf (k+1) / (tf + k (1 - b + b words/mean))`."""
        counts = Counter(self._terms(text))
        norm = self._k * (1 - self._b + self._b * counts.total() / self._mean_words)
        return _vector({index: count * (self._k + 1) / (count + norm) for index, count in counts.items()})

    def query(self, text: str) -> SparseVector:
        """Each word of a question once, with weight 1."""
        return _vector(dict.fromkeys(self._terms(text), 1.0))

    def _terms(self, text: str) -> Iterator[int]:
        if len(self._indices) > _REMEMBERED:
            self._indices.clear()
        for word in words(text):
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
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    for word in _WORDS.findall(folded):
        if word.isascii():
            if word not in _STOP_WORDS:
                yield word[:_LONGEST]
        else:
            yield from _of_other_scripts(word)


def _of_other_scripts(word: str) -> Iterator[str]:
    """A word, or the pairs of the East Asian characters in it, which are written without spaces."""
    end = 0
    for run in _EAST_ASIAN.finditer(word):
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
