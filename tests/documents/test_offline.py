"""The offline embedder: WordLlama's own vectors, without its code, its network or its logging."""

from __future__ import annotations

import logging
import math
import socket
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from ledgerq.documents.embed import make_embedder, offline
from ledgerq.documents.embed.offline import OfflineEmbedder
from ledgerq.errors import ConfigurationError

TEXTS = ["The flutter of a wing.", "Wings that flutter", "A recipe for onion soup", "naïve 日本語 😀", "word " * 2_000]


def test_vectors_are_those_of_wordllama() -> None:
    """In a process of its own: importing the package configures logging for all of it."""
    script = (
        "import json, sys, wordllama; from pathlib import Path\n"
        "model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)\n"
        "print(json.dumps(model.embed(json.load(sys.stdin), norm=True).tolist()))"
    )
    import json

    theirs = json.loads(
        subprocess.run([sys.executable, "-c", script], input=json.dumps(TEXTS), capture_output=True, text=True, check=True).stdout
    )
    ours = OfflineEmbedder().embed(TEXTS)
    assert len(ours.vectors) == len(TEXTS)
    for one, other in zip(ours.vectors, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_unit_length_and_nearness() -> None:
    flutter, wings, soup, *_ = OfflineEmbedder().embed(TEXTS).vectors
    assert math.hypot(*flutter) == pytest.approx(1.0, abs=1e-5)
    near, far = (sum(a * b for a, b in zip(flutter, other, strict=True)) for other in (wings, soup))
    assert near > far + 0.2


def test_tokens_are_counted_and_no_text_breaks_it() -> None:
    embedded = OfflineEmbedder().embed(["", "one two"])
    assert embedded.vectors[0] == [0.0] * 256
    assert embedded.tokens > 0
    assert embedded.cost == 0
    assert OfflineEmbedder().embed([]).vectors == []


def test_no_network_and_no_logging_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    before = (logging.root.level, list(logging.root.handlers))
    embedder = OfflineEmbedder()
    assert len(embedder.embed(["x"]).vectors[0]) == embedder.dimensions
    assert (logging.root.level, list(logging.root.handlers)) == before
    assert "wordllama" not in sys.modules


def test_it_may_be_used_again_after_closing() -> None:
    embedder = OfflineEmbedder()
    before = embedder.embed(["x"]).vectors
    embedder.close()
    assert embedder.embed(["x"]).vectors == before


@pytest.mark.parametrize(
    ("spec", "why"),
    [(None, r"pip install 'ledgerq\[local\]'"), (ModuleSpec("wordllama", None, origin="/nowhere/__init__.py"), "does not carry")],
)
def test_what_is_missing_is_named(spec: ModuleSpec | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "find_spec", lambda _: spec)
    with pytest.raises(ConfigurationError, match=why):
        OfflineEmbedder().embed(["x"])


def test_choosing() -> None:
    assert make_embedder().name == "wordllama-l2-supercat-256"
    assert make_embedder("offline", openai_api_key="k").provider == "offline"
    assert make_embedder(openai_api_key="k").name == "text-embedding-3-small-1536"
    assert make_embedder("openai:text-embedding-3-large@1024", openai_api_key="k").dimensions == 1024
    assert make_embedder("openai:some/model@768", openai_api_key="k", openai_base_url="http://x").name == "some/model-768"


@pytest.mark.parametrize(
    ("specification", "key", "why"),
    [
        ("nonsense", "k", "'nonsense': write 'offline'"),
        ("openai:text-embedding-3-small", None, "needs OPENAI_API_KEY"),
        ("openai:unknown-model", "k", "say its dimensions, as in openai:unknown-model@1024"),
        ("openai:text-embedding-ada-002@256", "k", "it has 1536 dimensions, not 256"),
        ("openai:text-embedding-3-small@4096", "k", "it has 1536 dimensions, not 4096"),
    ],
)
def test_choosing_wrongly_is_a_clear_error(specification: str, key: str | None, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make_embedder(specification, openai_api_key=key)


def test_nothing_is_read_before_it_is_needed() -> None:
    script = "import sys; import ledgerq.documents.embed.offline; sys.exit('numpy' in sys.modules or 'tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
