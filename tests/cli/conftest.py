"""Running commands: in this process, where their output is captured, with an environment that names nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledgerq.cli.environment import PARTS
from ledgerq.cli.run import run

OTHERS = ("LEDGERQ_DATA_DIR", "LEDGERQ_APP", "LEDGERQ_QUEUE", "LEDGERQ_EMBEDDER", "OPENAI_API_KEY", "LEDGERQ_LOG_LEVEL")


@dataclass(frozen=True)
class Ran:
    """What one command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; an error when there is anything else."""
        return json.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    """Run a command in an empty directory. What it writes into the environment is forgotten at the end."""
    with clean_environment(monkeypatch):
        monkeypatch.chdir(tmp_path)

        def ledgerq(*words: str) -> Ran:
            capfd.readouterr()
            code = run([*words])
            out, err = capfd.readouterr()
            return Ran(code, out, err)

        yield ledgerq


@contextmanager
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in {name for part in PARTS for name in part} | set(OTHERS):
            patch.setenv(name, "")  # remembered, so that what a command sets is undone
        yield
