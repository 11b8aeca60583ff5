"""The demo's directory, what it forgets, and how it ends; without its servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from ledgerq.cli.demo import _stopped_at_the_end, forget_settings
from ledgerq.cli.demo_directory import held
from ledgerq.cli.demo_report import tell_how_to_go_on
from ledgerq.cli.output import Output
from ledgerq.errors import InvalidInput, LocalStackError
from ledgerq.local import Stack
from ledgerq.local.identity import identify
from ledgerq.local.layout import Claim, Layout
from tests.cli.conftest import clean_environment

OUTPUT = Output(as_json=True)


@dataclass
class Ending:
    """Stands for a stack, and for an output that fails as one whose reader is gone."""

    error: BaseException
    ended: list[float | None] = field(default_factory=list)

    def down(self, *, grace_s: float | None = None) -> bool:
        self.ended.append(grace_s)
        return True

    def note(self, _text: str) -> None:
        raise self.error


@contextmanager
def handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), SystemExit(1)], ids=repr)
def test_the_stack_is_ended_whoever_hears_of_it(error: BaseException) -> None:
    fake = Ending(error)
    with handlers_kept(), pytest.raises(KeyboardInterrupt), _stopped_at_the_end(cast("Any", fake), cast("Any", fake)):
        raise KeyboardInterrupt
    assert fake.ended == [0.0]


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As `nohup` starts us."""
    fake = Ending(OSError())
    with handlers_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with _stopped_at_the_end(cast("Any", fake), cast("Any", fake)):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_every_setting_is_forgotten_but_those_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    with clean_environment(monkeypatch):
        for name in list(os.environ):
            if name.startswith(("LEDGERQ_", "RQ_")) or os.environ[name] == "":
                monkeypatch.delenv(name)
        given = ["LEDGERQ_EMBEDDER", "LEDGERQ_CHUNK_TOKENS", "JOB_TIMEOUT", "OPENAI_BASE_URL", "database_url", "RQ_REDIS_URL"]
        for name in [*given, "LEDGERQ_LOG_LEVEL", "LEDGERQ_LOG_FORMAT"]:
            monkeypatch.setenv(name, "x")
        assert forget_settings() == sorted(given)
        assert not set(given) & set(os.environ)
        assert os.environ["LEDGERQ_LOG_LEVEL"] == "x"


def test_what_it_names_next_reaches_its_own_stack(capsys: pytest.CaptureFixture[str]) -> None:
    tell_how_to_go_on(Output(as_json=False), Path("a place"), kept=True, forgotten=["DATABASE_URL", "REDIS_URL"])
    out = capsys.readouterr().out
    assert re.search(r"its jobs +env -u DATABASE_URL -u REDIS_URL \S*ledgerq jobs list --data-dir 'a place'\n", out)


def test_its_own_directory_is_emptied_and_held(tmp_path: Path) -> None:
    own = tmp_path / ".ledgerq-demo"
    Layout(own).prepare(with_postgres=False)
    (own / "postgres").mkdir()
    (own / "link").symlink_to(tmp_path)
    with held(Stack(own), OUTPUT, own=own):
        assert list(own.iterdir()) == []
        with pytest.raises(LocalStackError, match="another demo runs in"), held(Stack(own), OUTPUT, own=own):
            pass
    with held(Stack(own), OUTPUT, own=own):
        pass
    assert tmp_path.exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_of_the_demo_is_left(tmp_path: Path, kind: str) -> None:
    own = tmp_path / ".ledgerq-demo"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.md").write_text("precious")
    (tmp_path / "precious" / "VERSION").write_text("ledgerq-stack 1\n")
    if kind == "link":
        own.symlink_to(tmp_path / "precious")
    else:
        own.write_text("precious")
    with pytest.raises(InvalidInput, match="is not a directory of the demo"), held(Stack(own), OUTPUT, own=own):
        pass
    assert own.exists()
    assert (tmp_path / "precious" / "thesis.md").exists()


def test_somebody_elses_things_are_left(tmp_path: Path) -> None:
    own = tmp_path / ".ledgerq-demo"
    own.mkdir()
    (own / "thesis.md").write_text("precious")
    with pytest.raises(LocalStackError, match="holds other things"), held(Stack(own), OUTPUT, own=own):
        pass
    assert (own / "thesis.md").exists()


def test_a_running_stack_of_somebody_is_left(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "mine")
    layout.prepare(with_postgres=False)
    refused = pytest.raises(LocalStackError, match=r"a stack runs in .*mine: name another directory")
    with Claim(layout), refused, held(Stack(layout.data_dir), OUTPUT, own=None):
        pass
    with held(Stack(layout.data_dir), OUTPUT, own=None):
        assert layout.version_file.exists()


@pytest.mark.parametrize("version", ["ledgerq-stack 0", "ledgerq-stack 1"])
def test_what_another_version_left_is_ended_and_forgotten(tmp_path: Path, version: str) -> None:
    """Its records say more than we know, or its directory is another one altogether."""
    own = tmp_path / ".ledgerq-demo"
    own.mkdir()
    (own / "VERSION").write_text(version + "\n")
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        process = identify(left.pid)
        assert process is not None
        part = {"name": "worker-1", "pid": process.pid, "started": process.started, "colour": "blue"}
        nonsense = [part, {"name": "none"}, "text", {"name": "reused", "pid": os.getpid(), "started": "another time"}]
        (own / "stack.json").write_text(json.dumps({"phase": "dreaming", "parts": nonsense}))
        with held(Stack(own), OUTPUT, own=own):
            assert list(own.iterdir()) == []
        assert left.wait(10) == -signal.SIGTERM
    finally:
        left.kill()
        left.wait()
