"""No-op jobs end to end: ledgerq through a stock forking `rq worker`, and RQ alone with the same worker class, in turn.

    python bench/throughput.py [--jobs 10000] [--rq-jobs 400] [--rounds 3]

Every job is one row of the ledger with its own id, history and result; nothing knows that the handler does nothing. The clock
runs from the start of the first job to the end of the last one, without the start of the worker. RQ alone gets fewer jobs: its
rate does not depend on their number. CPU is that of the worker with its horses and of the servers; on a busy machine its ratio
is the one to trust.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import psycopg
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from ledgerq.models import JobRequest, TaskRequest
from support import Bench, CpuMeter, ledgerq_worker, median, report, rq_worker, servers

LONGEST_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    rate: float
    cpu_ms: float
    """A job: worker, horses and servers."""
    create_rate: float
    """Jobs a second, asked for in one call: rows and runs here, `enqueue_many` there."""
    completed: int
    runs: int = 0


def main() -> None:
    options = _options()
    ours: list[Round] = []
    alone: list[Round] = []
    with servers() as bench:
        for number in range(1, options.rounds + 1):
            alone.append(rq_round(bench, options.rq_jobs))
            ours.append(ledgerq_round(bench, options.jobs))
            print(
                f"round {number}: ledgerq {ours[-1].rate:,.0f} jobs/s in {ours[-1].runs} runs (created at {ours[-1].create_rate:,.0f}/s),"
                f" RQ alone {alone[-1].rate:,.1f} jobs/s, ratio {ours[-1].rate / alone[-1].rate:.1f};"
                f" CPU {ours[-1].cpu_ms:.2f} ms against {alone[-1].cpu_ms:.2f} ms a job",
                flush=True,
            )
    ratios = [mine.rate / theirs.rate for mine, theirs in zip(ours, alone, strict=True)]
    report(
        "throughput",
        {
            "jobs": options.jobs,
            "rounds": options.rounds,
            "completed": [one.completed for one in ours],
            "ledgerq_jobs_per_s": round(median([one.rate for one in ours]), 1),
            "created_jobs_per_s": round(median([one.create_rate for one in ours]), 1),
            "rq_created_jobs_per_s": round(median([one.create_rate for one in alone]), 1),
            "rq_jobs_per_s": round(median([one.rate for one in alone]), 1),
            "ratio": round(median(ratios), 2),
            "ledgerq_cpu_ms_per_job": round(median([one.cpu_ms for one in ours]), 3),
            "rq_cpu_ms_per_job": round(median([one.cpu_ms for one in alone]), 3),
            "cpu_ratio": round(median([theirs.cpu_ms / mine.cpu_ms for mine, theirs in zip(ours, alone, strict=True)]), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
        },
    )


def ledgerq_round(bench: Bench, jobs: int) -> Round:
    bench.fresh_ledger()
    with Redis.from_url(bench.valkey.url) as redis:
        redis.flushall()
    began = time.monotonic()
    with bench.manager() as manager:
        manager.create_jobs(JobRequest(type="nothing", tasks=(TaskRequest(key="only"),)) for _ in range(jobs))
        create_rate = jobs / (time.monotonic() - began)
        with ledgerq_worker(bench, "bench_app:handlers") as worker, psycopg.connect(bench.superuser_dsn, autocommit=True) as connection:
            _wait_until(lambda: _value(connection, "select count(*) from ledgerq.job where started_at is not null") > 0)
            done_before = _value(connection, "select count(*) from ledgerq.job where finished_at is not null")
            meter = CpuMeter(worker.pid, *bench.server_pids)
            _wait_until(lambda: _value(connection, "select count(*) from ledgerq.job where finished_at is null") == 0)
            cpu = meter.seconds()
            seconds = _value(connection, "select extract(epoch from max(finished_at) - min(started_at))::float8 from ledgerq.job")
            completed = _value(connection, "select count(*) from ledgerq.job where status = 'completed'")
            runs = _value(connection, "select count(*) from ledgerq.run")
    return Round(
        rate=jobs / seconds, cpu_ms=cpu * 1e3 / (jobs - done_before), create_rate=create_rate, completed=int(completed), runs=int(runs)
    )


def rq_round(bench: Bench, jobs: int) -> Round:
    with Redis.from_url(bench.valkey.url) as redis:
        redis.flushall()
        queue = Queue("alone", connection=redis, serializer=JSONSerializer)
        began = time.monotonic()
        made = queue.enqueue_many([Queue.prepare_data("rq_alone_jobs.nothing", result_ttl=3600) for _ in range(jobs)])
        create_rate = jobs / (time.monotonic() - began)
        first, last = (Job(one.id, connection=redis, serializer=JSONSerializer) for one in (made[0], made[-1]))
        with rq_worker(bench, "alone") as worker:
            _wait_until(lambda: queue.count < jobs)
            done_before = jobs - queue.count
            meter = CpuMeter(worker.pid, *bench.server_pids)
            _wait_until(lambda: last.get_status() == "finished")
            cpu = meter.seconds()
        first.refresh()
        last.refresh()
        assert first.started_at is not None
        assert last.ended_at is not None
        seconds = (last.ended_at - first.started_at).total_seconds()
        return Round(rate=jobs / seconds, cpu_ms=cpu * 1e3 / (jobs - done_before), create_rate=create_rate, completed=jobs)


def _wait_until(is_done) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError("the jobs are not done")
        time.sleep(0.25)


def _value(connection: psycopg.Connection, statement: str) -> float:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return float(row[0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rq-jobs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
