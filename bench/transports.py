"""The two ways to the ledger, side by side: what a call takes, and how many calls a job takes.

    python bench/transports.py [--calls 300] [--jobs 1000]

`postgres` is the direct connection, `supabase` the API of a Supabase project, which the tests' stand-in for PostgREST plays
here, in Python and on the same machine. So what is to be read off is what ledgerq adds to a call by itself: each way is put
beside the same call by its client alone (a psycopg cursor, supabase-py's `rpc`), in turns. What a network and the real
PostgREST add comes on top.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from redis import Redis
from supabase import Client, ClientOptions, create_client

from ledgerq.ledger import Transport
from ledgerq.manager import JobManager
from ledgerq.models import JobRequest, TaskRequest
from support import Bench, ledgerq_worker, median, percentile, report, servers

sys.path.append(str(Path(__file__).parents[1]))

from tests.support.databases import Database, Databases
from tests.support.proxy import Proxy
from tests.support.ways import KINDS, Kind, Way, open_way

LONGEST_S = 60.0


def main() -> None:
    options = _options()
    figures: dict[str, object] = {}
    with servers() as bench:
        databases = Databases(server=bench.postgres)
        with databases.fresh() as database, ExitStack() as stack:
            ways = {kind: stack.enter_context(open_way(kind, database)) for kind in KINDS}
            figures |= {f"{name}_{what}": figure for name, one in latency(ways, options.calls).items() for what, figure in one.items()}
        for kind in KINDS:
            with databases.fresh() as database:
                figures |= {f"{kind}_calls_{what}": round(calls, 2) for what, calls in calls_a_job(bench, kind, database, options.jobs)}
    for kind in KINDS:
        print(
            f"{kind:9} {figures[f'{kind}_ms_p50']} ms a call, {figures[f'{kind}_ratio']} times its client alone; "
            f"{figures[f'{kind}_calls_one']} calls for one job, {figures[f'{kind}_calls_each_of_many']} for each of {options.jobs}"
        )
    report("transports", {"calls": options.calls, "jobs": options.jobs, **figures})


def latency(ways: dict[Kind, Way], calls: int) -> dict[Kind, dict[str, float]]:
    """Milliseconds of the cheapest call, ours and the client's alone, in turns."""
    with ExitStack() as stack:
        pairs: dict[Kind, tuple[Callable[[], object], Callable[[], object]]] = {}
        for kind, way in ways.items():
            transport = way.transport()
            stack.callback(transport.close)
            alone = stack.enter_context(_client_alone(way))
            pairs[kind] = (_moment(transport), alone)
        for one in (call for pair in pairs.values() for call in pair):
            for _ in range(20):
                one()
        taken: dict[Kind, tuple[list[float], list[float]]] = {kind: ([], []) for kind in pairs}
        for _ in range(calls):
            for kind, (ours, alone) in pairs.items():
                taken[kind][0].append(_ms(ours))
                taken[kind][1].append(_ms(alone))
    return {
        kind: {
            "ms_p50": round(median(ours), 2),
            "ms_p95": round(percentile(ours, 0.95), 2),
            "alone_ms_p50": round(median(alone), 2),
            "ratio": round(median(ours) / median(alone), 2),
        }
        for kind, (ours, alone) in taken.items()
    }


def calls_a_job(bench: Bench, kind: Kind, database: Database, jobs: int) -> Iterator[tuple[str, float]]:
    """Calls of the ledger from the request to the end, manager, worker and keeper together: for a job alone, and for each of many."""
    with (
        open_way(kind, database) as direct,
        direct.through_proxy() as (way, proxy),
        JobManager.from_settings(way.settings(redis_url=bench.valkey.url)) as manager,
        Redis.from_url(bench.valkey.url) as redis,
    ):
        redis.flushall()
        with ledgerq_worker(bench, "bench_app:handlers", ledger=way.environment):
            _calls_until_done(manager, database, proxy, 1)  # opens what stays open
            yield "one", _calls_until_done(manager, database, proxy, 1)
            yield "each_of_many", _calls_until_done(manager, database, proxy, jobs) / jobs


def _calls_until_done(manager: JobManager, database: Database, proxy: Proxy, jobs: int) -> int:
    """The end is looked for in the database itself, which costs no call."""
    before = proxy.faults.calls
    manager.create_jobs([JobRequest(type="nothing", tasks=[TaskRequest(key="task")]) for _ in range(jobs)])
    deadline = time.monotonic() + LONGEST_S
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        while connection.execute("select 1 from ledgerq.run where status in ('dispatched', 'running') limit 1").fetchone() or (
            connection.execute("select 1 from ledgerq.job where finished_at is null limit 1").fetchone()
        ):
            assert time.monotonic() < deadline, "the jobs did not end"
            time.sleep(0.02)
    return proxy.faults.calls - before


def _moment(transport: Transport) -> Callable[[], object]:
    return lambda: transport.call("moment", {})


@contextmanager
def _client_alone(way: Way) -> Iterator[Callable[[], object]]:
    """The same call, by the client that a program would use without ledgerq."""
    if way.key is None:
        with psycopg.connect(way.address, autocommit=True, prepare_threshold=None) as connection:
            yield lambda: connection.execute("select ledgerq.moment(%s::jsonb)", (json.dumps({}),)).fetchone()
        return
    client: Client = create_client(way.address, way.key, ClientOptions(schema="ledgerq"))
    yield lambda: client.rpc("moment", {"request": {}}).execute()


def _ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
