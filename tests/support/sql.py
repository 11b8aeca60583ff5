"""The ledger's functions called as they are, through one connection as the service, with short ways to a starting point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from ledgerq.ids import new_id
from tests.support.clock import LedgerClock

CONFIG = "config-1"


@dataclass(frozen=True, slots=True)
class Sql:
    """`sql.call("job_get", job=…)` is `select ledgerq.job_get('{"job": …}')`."""

    connection: psycopg.Connection[tuple[Any, ...]]

    def call(self, function: str, **request: Any) -> Any:
        return self.value(f"select ledgerq.{function}(%s)", Jsonb(request, dumps=_dumps))

    def value(self, statement: str, *values: object) -> Any:
        row = self.connection.execute(statement.encode(), values or None).fetchone()
        return None if row is None else row[0]

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.encode(), values or None).fetchall()

    def run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement.encode(), values or None)


@contextmanager
def connected(dsn: str, *, autocommit: bool = True) -> Iterator[Sql]:
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        yield Sql(connection)


def _dumps(value: Any) -> str:
    return json.dumps(value, default=str)


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def document(text: str = "text", uri: str = "a.md", **fields: Any) -> dict[str, Any]:
    """One entry of save_documents."""
    return {
        "id": str(new_id()),
        "uri": uri,
        "content_hash": hash_of(text),
        "byte_size": len(text.encode()),
        "body": {"kind": "inline", "text": text},
    } | fields


def save(sql: Sql, *documents: dict[str, Any], **request: Any) -> list[dict[str, Any]]:
    return sql.call("save_documents", documents=list(documents), **request)["documents"]


def saved(sql: Sql, text: str = "text", uri: str = "a.md", **request: Any) -> str:
    """The id of a document with this text, saved now."""
    return save(sql, document(text, uri), **request)[0]["id"]


def begin(sql: Sql, document_id: str, config: str = CONFIG) -> dict[str, Any]:
    return sql.call("begin_documents", documents=[{"document": document_id, "config_digest": config}])["documents"][0]


@dataclass(slots=True)
class Run:
    """A run that one delivery works on, and the calls that its worker makes."""

    sql: Sql
    id: str
    delivery: str = field(default_factory=lambda: str(new_id()))
    step: int = 0
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def start(self, window: int = 100) -> dict[str, Any]:
        answer = self.sql.call(
            "start_run",
            run=self.id,
            delivery=self.delivery,
            worker="w1",
            execution_id="e1",
            window=window,
            host="h1",
            pid=7,
        )
        self.tasks = answer.get("tasks", [])
        return answer

    def advance(self, *outcomes: dict[str, Any], want: int = 100, **more: Any) -> dict[str, Any]:
        answer = self.sql.call(
            "advance_run",
            run=self.id,
            delivery=self.delivery,
            step=self.step,
            outcomes=list(outcomes),
            want=want,
            **{"yield": False},
            **more,
        )
        if answer["disposition"] == "applied":
            self.step = answer["step"]
            self.tasks = answer["tasks"]
        return answer

    def complete(self, begun: dict[str, Any], *, task: int | None = None, points: int = 3, **effect: Any) -> dict[str, Any]:
        """Acknowledge a task with the flip of what was begun for its document."""
        return self.advance(completed(task or self.tasks[0]["id"], begun, points=points, **effect))


def completed(task: int, begun: dict[str, Any], *, points: int = 3, **effect: Any) -> dict[str, Any]:
    return {"task": task, "kind": "completed", "effects": [effect_of(begun, points=points, **effect)]}


def effect_of(begun: dict[str, Any], *, points: int = 3, **effect: Any) -> dict[str, Any]:
    return {
        "document": begun["document"],
        "revision": begun["revision"],
        "generation": begun["generation"],
        "points": points,
        "digest": "d" * 64,
        "chunks": points,
        "usage": [],
    } | effect


def job(sql: Sql, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Create one job: what create_jobs answers, with the job's id."""
    request = {"id": str(new_id()), "type": "process", "queue": "processing", "tasks": list(tasks)} | fields
    return sql.call("create_jobs", jobs=[request], actor="test") | {"id": request["id"]}


def working_on(sql: Sql, *documents: str | UUID, **fields: Any) -> Run:
    """A job over these documents whose single run is in a worker's hands."""
    sql.run("update ledgerq.queue set depth = 1 where name = 'processing'")
    ticket = one_run(job(sql, *({"key": str(each), "document": str(each)} for each in documents), **fields))
    run = Run(sql, ticket)
    assert run.start()["disposition"] == "applied"
    return run


def one_run(created: dict[str, Any]) -> str:
    (ticket,) = created["runs"]
    return ticket["run"]


def lose(sql: Sql, clock: LedgerClock, run: Run) -> None:
    """The run's worker is heard of no more: its lease ends, and the run is lost at the second sighting."""
    clock.advance(60)
    judge(sql, run, "expired")
    clock.advance(10)
    assert judge(sql, run, "expired") == "applied"


def judge(sql: Sql, run: Run, verdict: str) -> str:
    """What becomes of a verdict that the status sync reaches by what it sees now."""
    seen = next(live for live in sql.call("live_runs")["runs"] if live["run"] == run.id)
    fence = {"seen_status": seen["status"], "seen_step": seen["step"], "seen_heartbeat_at": seen["heartbeat_at"]}
    answer = sql.call("reconcile_runs", actor="test", verdicts=[{"run": run.id, "verdict": verdict, "evidence": {}} | fence])
    return answer["runs"][0]["disposition"]
