"""Token counts: those of cl100k_base, without a network."""

from __future__ import annotations

import sys
import types

import pytest

from ledgerq.documents.tokens import Cl100k
from ledgerq.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello world", 2),
        ("tiktoken is great!", 6),  # the OpenAI cookbook's example
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 9),
        ("<|endoftext|>", 7),
    ],
)
def test_counts_are_those_of_the_published_encoding(text: str, tokens: int) -> None:
    assert Cl100k().count([text]) == [tokens]


def test_counts_come_in_order() -> None:
    assert Cl100k().count(["a b c", "", "a"]) == [3, 0, 1]


def test_tiktoken_serves_where_toktok_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoding:
        def encode_ordinary_batch(self, texts: list[str], *, num_threads: int) -> list[list[int]]:
            assert num_threads == 1
            return [[1] * len(text) for text in texts]

    tiktoken = types.ModuleType("tiktoken")
    tiktoken.get_encoding = lambda name: {"cl100k_base": Encoding()}[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toktok", None)
    monkeypatch.setitem(sys.modules, "tiktoken", tiktoken)
    assert Cl100k().count(["ab", "c"]) == [2, 1]


def test_without_either_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toktok", None)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ConfigurationError, match="install toktok-rs"):
        Cl100k().count(["x"])
