"""What is secret is told to nobody: after a life with failures in it, everything that anybody can look into is searched."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql
from redis import Redis

from ledgerq.lifecycle import JobStatus
from ledgerq.local.ports import free_port
from ledgerq.local.vectors.server import VectorServer
from tests.support.lab import Lab, Worker
from tests.support.openai_server import KEY, openai_server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

WRONG_KEY = "sk-wrong-5d41402abc4b2a76b9719d911017c592"
WAITS = """
    import time
    from pathlib import Path

    @handlers.handler("waits")
    def waits(task, context):
        context.log.warning("at the gate")
        context.progress({"at": "the gate"})
        while not Path(task.payload).exists():
            context.check_cancelled()
            time.sleep(0.02)
        raise RuntimeError("the gate was open")
"""


def test_no_secret_is_told(lab: Lab, vector_server: VectorServer, collection_name: str, tmp_path: Path) -> None:
    lab.use_vectors(vector_server, collection_name)
    gate, app = tmp_path / "gate", lab.app(WAITS)
    with openai_server() as openai:
        lab.extra |= {"OPENAI_BASE_URL": openai.base_url, "LEDGERQ_EMBEDDER": "openai:text-embedding-3-small", "LEDGERQ_LOG_LEVEL": "debug"}
        secrets = {**_secrets(lab), "the embedder's key": KEY, "a wrong key": WRONG_KEY}

        waiting = lab.jobs.create_job("waits", str(gate), max_attempts=1)
        indexed = lab.jobs.create_processing_job(None, lab.save_texts({"fine": "Some text. " * 20}).values())
        worker = lab.start_worker(app, options=OPTIONS, extra={"OPENAI_API_KEY": KEY})
        eventually(lambda: "at the gate" in worker.said(), seconds=60, what="a horse waits")
        seen = {"what processes show": _processes(worker)}
        assert all(secret in _environment(worker) for name, secret in secrets.items() if name != "a wrong key"), "or nothing is proved"
        gate.touch()
        assert lab.jobs.wait_for(waiting.id, "1m").status is JobStatus.FAILED
        assert lab.jobs.wait_for(indexed.id, "1m").status is JobStatus.COMPLETED, lab.why(indexed.id)
        worker.end()

        if lab.way.kind == "postgres":  # the embedder has nothing to do with the way to the ledger
            refused = lab.jobs.create_processing_job(None, lab.save_texts({"refused": "Other text. " * 20}).values())
            seen["a worker with a wrong key"] = lab.work(app, extra={"OPENAI_API_KEY": WRONG_KEY})
            assert lab.jobs.get_job(refused.id).status is JobStatus.FAILED, lab.why(refused.id)

    seen |= {
        "the worker's log": worker.said(),
        "the ledger": _ledger(lab),
        "Redis": _redis(lab.redis),
        "the commands": _commands(lab, str(waiting.id)),
    }
    run = lab.jobs.get_job(waiting.id).rq_job_id
    with _dashboard(lab) as address:
        pages = ("queues.json", "jobs/processing/failed/8/asc/1.json", "workers.json", f"job/{run}.json")
        seen["rq-dashboard"] = "".join(_page(f"{address}/0/data/{page}") for page in pages) + _page(f"{address}/")
    for where, text in seen.items():
        assert EXPECTED[where] in text, f"{where} was not really looked into"
    assert _found(secrets, seen) == []


OPTIONS = ("-S", "json", "-c", "ledgerq.rq_settings", "--verbose")
EXPECTED = {
    "what processes show": "rq",
    "the worker's log": "at the gate",
    "a worker with a wrong key": "processing",
    "the ledger": "the gate was open",
    "Redis": "execute_run",
    "the commands": "the gate was open",
    "rq-dashboard": "processing",
}
"""Words that must be there, or the search is blind."""


def _secrets(lab: Lab) -> dict[str, str]:
    way, found = lab.way, {"Redis's password": urlsplit(lab.redis_url).password, "Qdrant's key": lab.extra["QDRANT_API_KEY"]}
    found |= {"the project's key": way.key} if way.key else {"the database's password": urlsplit(way.address).password}
    assert all(found.values())
    return {name: secret for name, secret in found.items() if secret}


def _found(secrets: dict[str, str], seen: dict[str, str]) -> list[str]:
    return [
        f"{name} in {where}"
        for where, text in seen.items()
        for name, secret in secrets.items()
        if secret in text or quote(secret, safe="") in text
    ]


def _processes(worker: Worker) -> str:
    """What `ps` shows to everybody: the worker with its horse, its keeper and its line."""
    pids = [worker.pid, *worker.horses()]
    assert len(pids) >= 3
    return "\n".join(_file(pid, "cmdline") + _file(pid, "comm") for pid in pids)


def _environment(worker: Worker) -> str:
    return _file(worker.pid, "environ")


def _file(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _ledger(lab: Lab) -> str:
    """Every row of every table, also of what is announced."""
    with psycopg.connect(lab.database.superuser_dsn) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('ledgerq', 'realtime', 'supabase_migrations')"
        ).fetchall()
        rows = [connection.execute(sql.SQL("select t::text from {} t").format(sql.Identifier(*table))).fetchall() for table in tables]
    return "\n".join(str(row[0]) for table in rows for row in table)


def _redis(redis: Redis) -> str:
    """Every value of every key; what RQ compresses, unpacked."""
    return "\n".join(_plain(part) for key in redis.scan_iter() for part in (key, *_values(redis, key)))


def _values(redis: Redis, key: bytes) -> Iterator[bytes]:
    match redis.type(key):
        case b"hash":
            yield from (part for pair in redis.hgetall(key).items() for part in pair)
        case b"list":
            yield from redis.lrange(key, 0, -1)
        case b"set":
            yield from redis.smembers(key)
        case b"zset":
            yield from redis.zrange(key, 0, -1)
        case b"stream":
            yield from (part for _, entry in redis.xrange(key) for pair in entry.items() for part in pair)
        case b"string":
            yield redis.get(key) or b""
        case other:
            raise AssertionError(f"{key!r} is a {other!r}, which nobody looks into")


def _plain(part: bytes) -> str:
    with suppress(zlib.error):
        part = zlib.decompress(part)
    return part.decode(errors="replace")


def _commands(lab: Lab, job: str) -> str:
    """What people see: with all well, and with every service at an address where nobody answers."""
    nowhere = f"127.0.0.1:{free_port()}"
    away = {"REDIS_URL": lab.redis_url.rpartition("@")[0] + f"@{nowhere}", "QDRANT_URL": f"http://{nowhere}"}
    address = lab.way.address.rpartition("@")
    away |= {"SUPABASE_URL": f"http://{nowhere}"} if lab.way.key else {"DATABASE_URL": f"{address[0]}@{nowhere}/x"}
    asked: list[tuple[list[str], dict[str, str]]] = [(["jobs", "show", job, "--debug"], {}), (["doctor", "--json", "--debug"], {})]
    asked += [(["doctor", "--debug"], away), (["steward", "--once", "--debug"], away)]
    with ThreadPoolExecutor(len(asked)) as threads:
        return "".join(threads.map(lambda one: _told(lab, *one), asked))


def _told(lab: Lab, words: list[str], extra: dict[str, str]) -> str:
    environment = lab.environment(extra={"LEDGERQ_DATA_DIR": str(lab.directory / "none"), "OPENAI_API_KEY": KEY, **extra})
    ran = subprocess.run(
        [sys.executable, "-m", "ledgerq", *words],
        env=environment,
        cwd=lab.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout + ran.stderr

    return ran.stdout + ran.stderr


@contextmanager
def _dashboard(lab: Lab) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "ledgerq", "dashboard", "--port", str(port)]
    with (lab.directory / "dashboard.log").open("wb") as log:
        process = subprocess.Popen(command, env=lab.environment(), cwd=lab.directory, stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is None and _answers(f"http://127.0.0.1:{port}/"), seconds=60, what="rq-dashboard answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        return bool(_page(address))
    except OSError:
        return False


def _page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()
