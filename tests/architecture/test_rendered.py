"""What is rendered from `ledgerq.lifecycle` is what the files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.lifecycle import (
    JOB_TRANSITIONS,
    RUN_TRANSITIONS,
    TASK_TRANSITIONS,
    TERMINAL_JOB_STATUSES,
    JobStatus,
    RunStatus,
    TaskStatus,
)

ROOT = Path(__file__).parents[2]


def test_guard_and_diagrams_equal_the_tables_of_the_lifecycle() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts/render"), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("statuses", "transitions"),
    [(JobStatus, JOB_TRANSITIONS), (TaskStatus, TASK_TRANSITIONS), (RunStatus, RUN_TRANSITIONS)],
)
def test_each_step_is_listed_once_and_has_someone_who_takes_it(statuses: type, transitions: tuple) -> None:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    steps = [(step.source, step.target) for step in transitions]
    assert len(steps) == len(set(steps))
    assert all(step.moved_by for step in transitions)
    assert {status for step in steps for status in step} == set(statuses)


def test_completed_is_the_only_status_that_nothing_leaves() -> None:
    assert TERMINAL_JOB_STATUSES - {step.source for step in JOB_TRANSITIONS} == {JobStatus.COMPLETED}
