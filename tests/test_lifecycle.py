"""The projections of a job's status: every member has a word in each of the other vocabularies."""

from __future__ import annotations

import pytest

from ledgerq.lifecycle import JobStatus


@pytest.mark.parametrize(
    ("status", "coarse", "simple", "running_style"),
    [
        ("pending", "pending", "pending", "pending"),
        ("queued", "pending", "pending", "queued"),
        ("in_progress", "in_progress", "processing", "running"),
        ("completed", "completed", "completed", "completed"),
        ("partial", "completed", "completed", "completed"),
        ("failed", "failed", "failed", "failed"),
        ("cancelled", "cancelled", "failed", "cancelled"),
    ],
)
def test_a_status_in_other_words(status: str, coarse: str, simple: str, running_style: str) -> None:
    found = JobStatus(status)
    assert (found.coarse, found.simple, found.running_style) == (coarse, simple, running_style)


def test_there_are_seven() -> None:
    assert len(JobStatus) == 7
