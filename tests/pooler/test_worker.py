"""A stock `rq worker` with its horses and keepers, when all that they know of the ledger is a transaction pooler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ledgerq.lifecycle import JobStatus
from tests.support.databases import Database
from tests.support.lab import laboratory
from tests.support.pooler import pooled

pytestmark = pytest.mark.processes


def test_a_job_goes_its_whole_way_through_the_pooler(database: Database, redis_url: str, tmp_path: Path) -> None:
    with (
        pooled(database.service_dsn, tenant="abcdefghijklmnopqrst") as strict,
        laboratory(replace(database, service_dsn=strict.dsn), redis_url, tmp_path) as lab,
    ):
        app = lab.app("""
            @handlers.handler("square")
            def square(task, context):
                context.progress({"seen": task.payload})
                return Completed(task.payload ** 2)
        """)
        job = lab.jobs.create_job("square", tasks=[{"key": str(number), "payload": number} for number in range(2)])
        said = lab.work(app)
        lab.steward.run_once()
        assert lab.jobs.get_job(job.id).status == JobStatus.COMPLETED, said
        assert [task.result for task in lab.jobs.iter_tasks(job.id)] == [number**2 for number in range(2)]
