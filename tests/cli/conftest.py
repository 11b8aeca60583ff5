"""Running commands: in this process, where their output is captured, with an environment that names nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledgerq.cli.environment import PARTS
from ledgerq.cli.run import run
from ledgerq.local import Service, Stack
from tests.support.directories import server_directory

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


HANDLERS = """
from ledgerq import Completed, Failed, Handlers

handlers = Handlers()


@handlers.handler("double", max_attempts=1)
def double(task, context):
    return Completed(task.payload * 2) if isinstance(task.payload, int) else Failed("a number is needed")
"""


@dataclass(frozen=True)
class Installation:
    """A stack with one stock worker and a steward, shared by the tests that ask for it. They keep apart by tenant."""

    data_dir: Path
    app: str


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    with server_directory("cli") as directory:
        (directory / "cli_app.py").write_text(HANDLERS)
        environment = {"LEDGERQ_APP": "cli_app:handlers", "LEDGERQ_STEWARD_INTERVAL": "1s", "PYTHONPATH": str(directory)}
        rq = str(Path(sys.executable).with_name("rq"))
        services = [
            Service(name="worker-1", argv=(rq, "worker", "-S", "json", "-c", "ledgerq.rq_settings", "processing"), env=environment),
            Service(name="steward", argv=(sys.executable, "-m", "ledgerq", "steward"), env=environment),
        ]
        stack = Stack(directory / "stack", services=services, grace_s=5.0, fsync=False)
        try:
            stack.up()
            yield Installation(stack.data_dir, "cli_app:handlers")
        finally:
            stack.down(grace_s=0.0)


@pytest.fixture
def ledgerq(command: Command, installation: Installation) -> Command:
    """A command on the shared installation."""

    def on_it(*words: str) -> Ran:
        return command(*words, "--data-dir", str(installation.data_dir))

    return on_it
