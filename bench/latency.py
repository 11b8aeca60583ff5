"""One job on an idle system: from the request to the first statement of its function, and what ledgerq adds to RQ alone.

    python bench/latency.py [--jobs 200]

The two take turns, each with a forking worker that waits for it and has its function loaded. ledgerq's time holds the job's
creation and dispatch in the ledger, the push, RQ's own way to the horse, the keeper, and the start of the run in the ledger.
"""

from __future__ import annotations

import argparse
import time

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from ledgerq.manager import JobManager
from support import ledgerq_worker, median, percentile, report, rq_worker, servers

LONGEST_S = 30


def main() -> None:
    options = _options()
    with servers() as bench, Redis.from_url(bench.valkey.url) as redis, bench.manager() as manager:
        queue = Queue("alone", connection=redis, serializer=JSONSerializer)
        with ledgerq_worker(bench, "bench_app:handlers"), rq_worker(bench, "alone"):
            for _ in range(5):
                once_ledgerq(manager), once_rq(queue)
            pairs = [(once_ledgerq(manager), once_rq(queue)) for _ in range(options.jobs)]
    ours, alone = [pair[0] * 1e3 for pair in pairs], [pair[1] * 1e3 for pair in pairs]
    print(f"ledgerq {median(ours):.1f} ms, RQ alone {median(alone):.1f} ms (medians of {options.jobs})")
    report(
        "latency",
        {
            "jobs": options.jobs,
            "ledgerq_ms_p50": round(median(ours), 2),
            "ledgerq_ms_p95": round(percentile(ours, 0.95), 2),
            "rq_ms_p50": round(median(alone), 2),
            "rq_ms_p95": round(percentile(alone, 0.95), 2),
            "ratio": round(median(ours) / median(alone), 2),
            "price_ms_p50": round(median(ours) - median(alone), 2),
        },
    )


def once_ledgerq(manager: JobManager) -> float:
    asked = time.time()
    job = manager.create_job("moment")
    done = manager.wait_for(job.id, LONGEST_S)
    time.sleep(0.02)  # until the worker waits again
    assert isinstance(done.result, float)
    return done.result - asked


def once_rq(queue: Queue) -> float:
    asked = time.time()
    job = queue.enqueue("rq_alone_jobs.moment")
    deadline = time.monotonic() + LONGEST_S
    while (result := job.latest_result()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.02)
    return float(result.return_value) - asked


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
