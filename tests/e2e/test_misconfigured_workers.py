"""Workers that cannot start runs are named and met seldom; the jobs they spoiled are done by the next good one."""

from __future__ import annotations

import pytest

from ledgerq.lifecycle import JobStatus
from tests.support.lab import Lab

pytestmark = pytest.mark.processes

APP = "@handlers.handler('noop')\ndef noop(task): return Completed('done')"


def test_a_worker_without_the_json_serializer_is_recognised(lab: Lab) -> None:
    app = lab.app(APP)
    job = lab.jobs.create_job("noop")
    worker = lab.start_worker(app, burst=True, options=("-c", "ledgerq.rq_settings", "-n", "w7"))
    assert worker.wait() == 0, worker.said()
    lab.clock.advance(10)
    reconciled = lab.steward.run_once().reconciled
    assert reconciled is not None
    assert [misfire.error for misfire in reconciled.misfires] == [
        "worker w7 cannot read runs: start it with `-S json -c ledgerq.rq_settings`"
    ]
    assert reconciled.applied == (), "held back, so that such a worker does not meet a hot loop"
    lab.clock.advance(31)
    lab.steward.run_once()
    explained = lab.jobs.explain_job(job.id).model_dump_json()
    lab.work(app)
    done = lab.jobs.get_job(job.id)
    assert (done.status, done.result) == (JobStatus.COMPLETED, "done")
    assert "w7" in explained, explained


def test_a_worker_whose_app_cannot_be_imported_ends_with_one_clear_line(lab: Lab) -> None:
    lab.jobs.create_job("noop")
    worker = lab.start_worker("no_such_module:handlers", burst=True)
    assert worker.wait() != 0
    assert "LEDGERQ_APP='no_such_module:handlers': importing no_such_module raised ModuleNotFoundError" in worker.said()
    assert lab.redis.llen("rq:queue:processing") == 1, "it took nothing"
