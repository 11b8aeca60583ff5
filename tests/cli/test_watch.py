"""Watching jobs: what is shown, and when it gives up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import rich.console

from ledgerq.cli import watch as module
from ledgerq.cli.watch import Watched, watch
from ledgerq.errors import LedgerUnavailable
from ledgerq.lifecycle import JobStatus
from ledgerq.models import Explanation, Job


class Ledger:
    """Answers from a script: each look at a job takes its next state; an exception is raised instead."""

    def __init__(self, *states: Sequence[Any]) -> None:
        self.first = [cast("Job", one[0]) for one in states]
        self._left = {one[0].id: list(one[1:]) for one in states}
        self._now = {one[0].id: one[0] for one in states}
        self.synced = 0
        self.explained = 0
        self.time = 0.0

    def get_job(self, job: Any) -> Job:
        if self._left[job]:
            following = self._left[job].pop(0)
            if isinstance(following, Exception):
                raise following
            self._now[job] = following
        return self._now[job]

    def get_job_status(self, job: Any) -> JobStatus:
        self.synced += 1
        return self._now[job].status

    def explain_job(self, _job: Any) -> Explanation:
        self.explained += 1
        return Explanation(sentence="It waits for a worker.", cause="no_worker")

    def clock(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds

    def watch(self) -> list[Job]:
        return watch(cast("Any", self), [Watched(title=f"job {at}", job=job) for at, job in enumerate(self.first, 1)], clock=self.clock)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only as the ledger of the test says."""
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _s: None, monotonic=lambda: 0.0))


def timed(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Ledger:
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=ledger.pause, monotonic=ledger.clock))
    return ledger


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal, whatever this one is."""
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    real = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: real(file=screen, width=100))
    return screen


def job(status: JobStatus, done: int = 0, *, like: Job | None = None, failed: int = 0) -> Job:
    return Job(
        id=like.id if like else uuid4(),
        type="process",
        queue="processing",
        status=status,
        total=4,
        completed=done,
        failed=failed,
        created_at=datetime(2031, 5, 4, tzinfo=UTC),
    )


def test_it_ends_when_the_last_job_has(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = job(JobStatus.QUEUED), job(JobStatus.QUEUED)
    ledger = Ledger(
        [one, job(JobStatus.IN_PROGRESS, 2, like=one), job(JobStatus.COMPLETED, 4, like=one)],
        [two, two, two, job(JobStatus.PARTIAL, 3, like=two, failed=1)],
    )
    ended = timed(monkeypatch, ledger).watch()
    assert [found.status for found in ended] == ["completed", "partial"]
    err = capsys.readouterr().err
    assert "job 1: 4 of 4, completed\n" in err
    assert "job 2: 4 of 4, partial, 1 failed\n" in err


def test_jobs_that_have_ended_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(JobStatus.CANCELLED)
    assert timed(monkeypatch, Ledger([one, AssertionError()])).watch() == [one]


def test_a_long_silence_is_explained_once_and_rq_is_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(JobStatus.QUEUED)
    ledger = timed(monkeypatch, Ledger([one, *[one] * 100, job(JobStatus.COMPLETED, 4, like=one)]))
    ledger.watch()
    assert ledger.explained == 1
    assert ledger.synced >= 3
    assert capsys.readouterr().err.count("It waits for a worker.") == 1


def test_a_ledger_that_comes_back_was_never_away(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(JobStatus.QUEUED)
    ledger = timed(monkeypatch, Ledger([one, *[LedgerUnavailable("away")] * 20, job(JobStatus.COMPLETED, 4, like=one)]))
    assert ledger.watch()[0].status == "completed"


def test_a_ledger_that_stays_away_is_an_error_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(JobStatus.QUEUED)
    ledger = timed(monkeypatch, Ledger([one, *[LedgerUnavailable("away")] * 1_000]))
    with pytest.raises(LedgerUnavailable):
        ledger.watch()
    assert 60 < ledger.time < 62


def test_a_terminal_gets_a_bar_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    one, two = job(JobStatus.QUEUED), job(JobStatus.QUEUED)
    ledger = Ledger([one, *[one] * 60, job(JobStatus.COMPLETED, 4, like=one)], [two, job(JobStatus.FAILED, 0, like=two, failed=4)])
    ledger.pause(0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=ledger.pause, monotonic=ledger.clock))
    ledger.watch()
    shown = screen.getvalue()
    assert "job 1" in shown
    assert "4/4" in shown
    assert "failed, 4 failed" in shown
    assert "It waits for a worker." in shown


def test_jobs_of_one_title_have_a_bar_each(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    one, two = job(JobStatus.QUEUED), job(JobStatus.QUEUED)
    ledger = timed(monkeypatch, Ledger([one, job(JobStatus.COMPLETED, 4, like=one)], [two, job(JobStatus.FAILED, 1, like=two, failed=1)]))
    watch(cast("Any", ledger), [Watched(title="notes", job=job) for job in ledger.first], clock=ledger.clock)
    assert "4/4" in screen.getvalue()
    assert "2/4" in screen.getvalue()


@pytest.mark.parametrize("setting", [{"TERM": "dumb"}, {"FORCE_COLOR": "1"}])
def test_what_is_no_screen_gets_lines(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A dumb terminal cannot move its cursor, and a file has none, whatever colours somebody wants in it."""
    if "TERM" in setting:
        terminal(monkeypatch)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    one = job(JobStatus.QUEUED)
    timed(monkeypatch, Ledger([one, job(JobStatus.COMPLETED, 4, like=one)])).watch()
    assert capsys.readouterr().err == "job 1: 4 of 4, completed\n"
