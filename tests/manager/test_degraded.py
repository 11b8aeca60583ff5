"""Redis away: jobs are accepted. Postgres away: one clear error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledgerq.errors import ConfigurationError, LedgerUnavailable
from ledgerq.lifecycle import JobStatus
from ledgerq.manager import JobManager
from ledgerq.models import JobRequest, TaskRequest
from ledgerq.settings import Settings
from tests.support.lab import Lab

NOBODY_THERE = "127.0.0.1:1"


@pytest.fixture
def without_redis(lab: Lab) -> Iterator[JobManager]:
    settings = Settings.model_validate({"database_url": lab.database.service_dsn, "redis_url": f"redis://{NOBODY_THERE}/0"})
    with JobManager.from_settings(settings) as jobs:
        yield jobs


def test_a_job_is_accepted_while_redis_is_away_and_goes_out_when_it_is_back(lab: Lab, without_redis: JobManager) -> None:
    job = without_redis.create_job("noop")
    assert job.status is JobStatus.PENDING, "its run was taken back: nobody will deliver it"
    assert job.degraded is not None
    assert "Redis" in job.degraded
    assert without_redis.get_job_status(job.id) is JobStatus.PENDING
    assert lab.steward.run_once().pushed == 1
    assert lab.jobs.get_job_status(job.id) is JobStatus.QUEUED


def test_many_jobs_are_accepted_while_redis_is_away(lab: Lab, without_redis: JobManager) -> None:
    report = without_redis.create_jobs([JobRequest(type="noop", tasks=(TaskRequest(key="a"),)) for _ in range(1_500)])
    assert (len(report.jobs), report.pushed) == (1_500, 0)
    assert report.degraded
    lab.jobs.pause_queue()
    without_redis.resume_queue()
    assert lab.steward.run_once().pushed == 8


def test_reading_a_job_needs_no_redis(lab: Lab, without_redis: JobManager) -> None:
    job = lab.jobs.create_job("noop")
    lab.clock.advance(3_600)
    assert without_redis.get_job_status(job.id) is JobStatus.QUEUED


def test_without_a_ledger_nothing_is_half_done() -> None:
    settings = Settings.model_validate({"database_url": f"postgresql://u:p@{NOBODY_THERE}/x", "ledger_timeout_s": 0.5})
    with JobManager.from_settings(settings) as jobs, pytest.raises(LedgerUnavailable) as raised:
        jobs.create_job("noop")
    assert NOBODY_THERE.split(":", maxsplit=1)[0] in str(raised.value)
    assert ":p@" not in str(raised.value), "no password in a message"


def test_without_settings_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "LEDGERQ_DATABASE_URL", "SUPABASE_URL", "LEDGERQ_APP"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        JobManager.from_env()


def test_from_env_knows_the_types_of_the_app(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    app = lab.app("@handlers.handler('known', max_attempts=9)\ndef known(task): ...")
    monkeypatch.syspath_prepend(str(lab.directory))
    for name, value in {"DATABASE_URL": lab.database.service_dsn, "REDIS_URL": lab.redis_url, "LEDGERQ_APP": app}.items():
        monkeypatch.setenv(name, value)
    with JobManager.from_env() as jobs:
        assert jobs.create_job("known").max_attempts == 9
        with pytest.raises(ValueError, match=r"unknown_type.*known"):
            jobs.create_job("unknown_type")
