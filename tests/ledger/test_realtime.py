"""Who looks at a job is told of each change; what was not heard is read. Verified on the shim of Realtime's functions."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ledgerq.ids import new_id
from ledgerq.ledger.migrate import migrate
from ledgerq.ledger.migration_files import shipped_migrations
from tests.support.browsers import claims, may_join, user
from tests.support.databases import Database, Databases
from tests.support.sql import Sql, connected
from tests.support.work import Row, Work, outcome, outcomes

TOLD = ("id", "sequence", "status", "total", "completed", "failed", "cancelled", "cancel_requested_at", "finished_at", "progress")
READABLE = ("job", "task", "event", "document", "source")


def topic_of(owner: str) -> str:
    return f"ledgerq:owner:{owner}"


def messages(sql: Sql, owner: str) -> list[Row]:
    """In the order in which they were sent by one connection: by transaction, and by command in it."""
    told = "select payload from realtime.messages where topic = %s order by inserted_at, cmin::text::bigint"
    return [row[0] for row in sql.rows(told, topic_of(owner))]


def heard(dsn: str, owner: str) -> list[Row]:
    with user(dsn, owner, topic=topic_of(owner)) as sql:
        return messages(sql, owner)


def shown(dsn: str, owner: str) -> dict[str, Row]:
    """A snapshot: what the owner reads of the jobs, through row-level security."""
    with user(dsn, owner) as sql:
        rows = sql.rows(f"select to_jsonb(x) from (select {', '.join(TOLD)} from ledgerq.job) x")
    return {row[0]["id"]: row[0] for row in rows}


@pytest.fixture(scope="module", autouse=True)
def undisturbed(module_database: Database) -> None:
    """A vacuum that shortens the table locks it for a moment, and what is not told then is told to nobody."""
    with connected(module_database.dsn) as sql:
        sql.run("alter table realtime.messages set (autovacuum_enabled = off)")


@pytest.fixture
def owner() -> str:
    return str(uuid4())


@pytest.fixture
def dsn(module_database: Database) -> str:
    return module_database.dsn


# --- who may listen -----------------------------------------------------------------------------------------------------


def test_a_user_joins_the_channel_of_their_own_jobs_and_no_other(dsn: str, owner: str) -> None:
    mine, others = topic_of(owner), topic_of(str(uuid4()))
    assert may_join(dsn, "authenticated", claims(owner), mine)
    assert not may_join(dsn, "authenticated", claims(owner), others)
    assert not may_join(dsn, "authenticated", claims(owner), "room:1")
    assert not may_join(dsn, "authenticated", claims(owner), mine, extension="presence")
    assert not may_join(dsn, "anon", claims(owner, role="anon"), mine)


@pytest.mark.parametrize("sub", [None, "", "%", "auth0|7", "' or true --"])
def test_a_token_whose_subject_is_no_user_joins_nothing_and_breaks_nothing(dsn: str, owner: str, sub: str | None) -> None:
    """An error would close every channel of the project to whoever has such a token."""
    for topic in (topic_of(owner), topic_of("*"), "room:1"):
        assert not may_join(dsn, "authenticated", claims(sub), topic)


def test_messages_are_read_by_their_owner_on_the_channel_they_joined(work: Work, dsn: str, owner: str) -> None:
    other = str(uuid4())
    for each in (owner, other, None):
        work.create(owner=each)
    everything = "select topic, payload ->> 'status' from realtime.messages"
    for each, topic, seen in ((owner, owner, [owner]), (other, other, [other]), (owner, other, []), (owner, "", [])):
        with user(dsn, each, topic=topic_of(topic) if topic else "") as sql:
            assert sql.rows(everything) == [(topic_of(one), "pending") for one in seen]


def test_users_send_nothing_on_it(dsn: str, owner: str) -> None:
    with user(dsn, owner, topic=topic_of(owner)) as sql, pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql.run("insert into realtime.messages (topic, extension) values (%s, 'broadcast')", topic_of(owner))


# --- what is told -------------------------------------------------------------------------------------------------------


def test_each_change_is_told_in_order_and_says_what_the_row_says(work: Work, dsn: str, owner: str) -> None:
    """A job that fails in part, is tried again, is cancelled, and is deleted."""
    job = work.create(3, owner=owner)
    read = 0

    def told() -> list[Row]:
        nonlocal read
        so_far = heard(dsn, owner)
        new, read = so_far[read:], len(so_far)
        assert new[-1] == shown(dsn, owner)[job]
        return new

    assert [one["status"] for one in told()] == ["pending"]
    run = work.one_run()
    assert [one["status"] for one in told()] == ["queued", "in_progress"]
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[1], "failed"), outcome(run.tasks[2], "failed"))
    assert [(one["status"], one["completed"], one["failed"]) for one in told()] == [("partial", 1, 2)]
    work.retry(job)
    assert next((one["status"], one["failed"], one["finished_at"]) for one in told()) == ("pending", 0, None)
    work.cancel(job)
    assert [one["status"] for one in told()][-1] == "cancelled"
    last = heard(dsn, owner)[-1]["sequence"]
    work.sql.call("delete_job", job=job, actor="ann")
    assert heard(dsn, owner)[-1] == {"id": job, "sequence": last + 1, "deleted": True}
    assert [one["sequence"] for one in heard(dsn, owner)] == list(range(last + 2))


def test_an_external_jobs_progress_is_told(work: Work, dsn: str, owner: str) -> None:
    job = work.create(0, owner=owner, external=True)
    work.sql.call("update_job", job=job, status="in_progress", progress={"pages": 1})
    work.sql.call("update_job", job=job, progress={"pages": 2})
    work.sql.call("complete_job", job=job, result={"pages": 2})
    assert [(one["sequence"], one["status"], one["progress"]) for one in heard(dsn, owner)] == [
        (0, "pending", None),
        (1, "in_progress", {"pages": 1}),
        (2, "in_progress", {"pages": 2}),
        (3, "completed", {"pages": 2}),
    ]
    assert work.sql.call("job_get", job=job)["sequence"] == 3


def test_an_acknowledgement_of_many_tasks_is_told_once(work: Work, dsn: str, owner: str) -> None:
    _, run = work.running(100, window=50, owner=owner)
    before = len(heard(dsn, owner))
    run.advance(*outcomes(run, "retry", after_s=60), want=50)
    run.advance(*outcomes(run))
    assert [(one["completed"], one["status"]) for one in heard(dsn, owner)[before:]] == [(0, "in_progress"), (50, "pending")]


def test_a_large_progress_is_left_to_be_read(work: Work, dsn: str, owner: str) -> None:
    job = work.create(0, owner=owner, external=True)
    for size in (4000, 60_000):
        work.sql.call("update_job", job=job, progress={"log": "x" * size})
    _, small, large = heard(dsn, owner)
    assert len(small["progress"]["log"]) == 4000
    assert "progress" not in large
    assert large["sequence"] == 2
    assert max(len(json.dumps(one)) for one in (small, large)) < 5000


def test_nothing_is_told_of_what_was_undone_or_is_nobodys(work: Work, module_database: Database, dsn: str, owner: str) -> None:
    nobodys = work.create()
    with connected(module_database.service_dsn, autocommit=False) as sql:
        Work(sql=sql, clock=work.clock).create(owner=owner)
        assert len(messages(sql, owner)) == 1
        sql.connection.rollback()
    work.cancel(nobodys)
    assert work.job(nobodys)["sequence"] == 2
    with connected(dsn) as everybody:
        assert everybody.value("select count(*) from realtime.messages where payload ->> 'id' = %s", nobodys) == 0
        assert messages(everybody, owner) == []


def test_changes_made_at_once_have_numbers_without_gap_or_repeat(work: Work, module_database: Database, dsn: str, owner: str) -> None:
    jobs = [work.create(0, owner=owner, external=True) for _ in range(2)]

    def hand(number: int) -> None:
        with connected(module_database.service_dsn) as sql:
            for step in range(20):
                sql.call("update_job", job=jobs[(number + step) % 2], progress={"hand": number, "step": step})

    with ThreadPoolExecutor(4) as hands:
        list(hands.map(hand, range(4)))
    for job in jobs:
        work.sql.call("complete_job", job=job, result=None)
        told = sorted((one for one in heard(dsn, owner) if one["id"] == job), key=lambda one: one["sequence"])
        assert [one["sequence"] for one in told] == list(range(42))
        assert told[-1] == shown(dsn, owner)[job]


# --- what is missed -----------------------------------------------------------------------------------------------------


@dataclass
class Screen:
    """What a page shows of its owner's jobs: the code of docs/realtime.md, line by line."""

    read: Callable[[], dict[str, Row]]
    jobs: dict[str, Row] = field(default_factory=dict[str, Row])
    healed: int = 0

    @property
    def shown(self) -> dict[str, Row]:
        return {job: row for job, row in self.jobs.items() if "deleted" not in row}

    def connect(self) -> None:
        self.jobs.clear()
        for row in self.read().values():
            self.take(row)

    def hear(self, told: Row) -> None:
        known = self.known(told["id"])
        if "deleted" in told or (told["sequence"] == known + 1 and "progress" in told):
            self.take(told)
        elif told["sequence"] > known:
            self.heal(told["id"])

    def heal(self, job: str) -> None:
        self.healed += 1
        if found := self.read().get(job):
            self.take(found)

    def take(self, job: Row) -> None:
        if job["sequence"] > self.known(job["id"]):
            self.jobs[job["id"]] = job

    def known(self, job: str) -> int:
        return self.jobs.get(job, {"sequence": -1})["sequence"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_screen_that_loses_a_third_of_the_messages_ends_as_the_rows_are(work: Work, dsn: str, owner: str, seed: int) -> None:
    """Messages arrive late, and many never. What it shows is never older than what it heard."""
    chance = random.Random(seed)
    screen = Screen(lambda: shown(dsn, owner))
    screen.connect()
    sent = 0
    heard_last: dict[str, bool] = {}
    for _ in busy_life(work, owner, chance):
        if chance.random() < 0.4:
            continue  # They are on their way while the next thing happens.
        told_so_far = heard(dsn, owner)
        new, sent = told_so_far[sent:], len(told_so_far)
        for told in new:
            heard_last[told["id"]] = chance.random() >= 0.3
            if not heard_last[told["id"]]:
                continue
            screen.hear(told)
            if on_screen := screen.jobs.get(told["id"]):
                assert on_screen["sequence"] >= told["sequence"]
                assert on_screen in told_so_far
    for told in heard(dsn, owner)[sent:]:  # what came after the last look
        heard_last[told["id"]] = True
        screen.hear(told)
    assert 0 < screen.healed < len(heard(dsn, owner)) / 2
    rows = shown(dsn, owner)
    assert set(heard_last.values()) == {True, False}, "or nothing is proved"
    for job, heard_it in heard_last.items():
        assert screen.shown.get(job) == rows.get(job) or not heard_it, "whoever hears a job's last message has the job as it is"
    screen.connect()
    assert screen.shown == rows, "and the others at the next reading"
    assert len(rows) == 7


def busy_life(work: Work, owner: str, chance: random.Random) -> Iterator[None]:
    """Eight jobs between others' work; after each yield something was told."""
    jobs = [work.create(chance.randint(1, 6), owner=owner) for _ in range(8)]
    for _ in range(2):
        work.create(owner=str(uuid4()))
    work.limits(depth=20)
    yield
    for run in [each for _ in range(12) for each in work.runs()]:
        run.start(window=3)
        yield
        while run.tasks:
            answer = run.advance(*(outcome(task, chance.choice(["completed", "completed", "failed"])) for task in run.tasks))
            yield
            if answer["finished"]:
                break
    for job in jobs:
        if work.status(job) in ("failed", "partial"):
            work.retry(job)
            yield
            work.cancel(job)
            yield
    work.sql.call("delete_job", job=jobs[0], actor="ann")
    yield


# --- it is never in the way ---------------------------------------------------------------------------------------------


def test_without_realtime_nothing_is_told_and_all_goes_on(database: Database, owner: str) -> None:
    with connected(database.superuser_dsn) as superuser:
        superuser.run("drop schema realtime cascade")
    with connected(database.service_dsn) as sql, noticed(sql) as notices:
        job = whole_life(sql, owner)
        assert sql.call("job_get", job=job)["sequence"] == 2
    assert notices == []


FAILS = {
    "no partition for today": "raise exception 'no partition for today'",
    "canceling statement due to statement timeout": (
        "raise exception using errcode = 'query_canceled', message = 'canceling statement due to statement timeout'"
    ),
    "assertion failed": "assert false",
    "canceling statement due to lock timeout": "lock table realtime.messages_part in access share mode",
}


@pytest.mark.parametrize("said", FAILS)
def test_a_realtime_that_fails_fails_no_call(database: Database, owner: str, said: str) -> None:
    """Also one that was stopped in its tracks, and one whose part of the table is locked: which the lock of the whole does not tell."""
    with connected(database.superuser_dsn) as superuser, connected(database.superuser_dsn, autocommit=False) as holder:
        superuser.run("create table realtime.messages_part ()")
        superuser.run(
            "create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)"
            f" returns void language plpgsql as $$ begin {FAILS[said]}; end $$"
        )
        superuser.run("grant all on realtime.messages_part to postgres")
        holder.run("lock table realtime.messages_part in access exclusive mode")
        with connected(database.service_dsn) as sql, noticed(sql) as notices:
            job = whole_life(sql, owner)
            assert sql.call("job_get", job=job)["sequence"] == 2
    assert len(notices) == 3
    assert set(notices) == {f"a change of a job of {owner} was not announced: {said}"}


def test_tables_of_realtime_that_are_locked_are_not_waited_for(work: Work, module_database: Database, owner: str) -> None:
    with connected(module_database.superuser_dsn, autocommit=False) as holder, noticed(work.sql) as notices:
        holder.run("lock table realtime.messages in access exclusive mode")
        work.sql.run("set lock_timeout = 0")
        work.sql.run("set statement_timeout = '20s'")
        whole_life(work.sql, owner)
    assert len(notices) == 3
    assert all("could not obtain lock" in notice for notice in notices)


def test_a_member_of_the_service_that_row_level_security_holds_announces_too(work: Work, module_database: Database, owner: str) -> None:
    with connected(module_database.superuser_dsn, autocommit=False) as sql:
        sql.run("create role plain_announcer login inherit nobypassrls in role service_role")
        sql.run("set local session authorization plain_announcer")
        whole_life(sql, owner)
        sql.run("reset session authorization")
        assert [one["status"] for one in messages(sql, owner)] == ["pending", "in_progress", "completed"]
        sql.connection.rollback()


def whole_life(sql: Sql, owner: str) -> str:
    """A job, told three times."""
    job = str(new_id())
    sql.call("create_jobs", jobs=[{"id": job, "type": "noop", "queue": "processing", "external": True, "owner": owner}])
    sql.call("update_job", job=job, status="in_progress")
    assert sql.call("complete_job", job=job, result=None)["status"] == "completed"
    return job


@contextmanager
def noticed(sql: Sql) -> Iterator[list[str]]:
    """What the server says beside its answers."""
    said: list[str] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        said.append(diagnostic.message_primary or "")

    sql.connection.add_notice_handler(hear)
    yield said
    sql.connection.remove_notice_handler(hear)


# --- the migration ------------------------------------------------------------------------------------------------------


def test_it_can_be_switched_off(database: Database, owner: str) -> None:
    with connected(database.dsn) as sql, connected(database.service_dsn) as service:
        sql.run("alter table ledgerq.job disable trigger job_announced, disable trigger job_removal_announced")
        assert service.call("job_get", job=whole_life(service, owner))["sequence"] == 2
        assert messages(sql, owner) == []


def test_realtime_may_come_later(databases: Databases, owner: str) -> None:
    with databases.empty() as plain, connected(plain.superuser_dsn) as superuser:
        superuser.run("drop schema realtime cascade")
        migrate(plain.dsn)
        databases.server.apply_shim(plain.name)
        with connected(plain.service_dsn) as sql:
            whole_life(sql, owner)
        assert [one["sequence"] for one in messages(superuser, owner)] == [0, 1, 2]


def test_whoever_may_make_no_policy_is_told_what_to_run(database: Database, owner: str) -> None:
    makes_policy = next(
        statement for each in shipped_migrations() if each.name == "realtime" for statement in each.statements if "$policy$" in statement
    )
    with connected(database.superuser_dsn) as superuser, connected(database.dsn) as sql, noticed(sql) as notices:
        sql.run(makes_policy)  # It is there already.
        assert may_join(database.dsn, "authenticated", claims(owner), topic_of(owner))
        superuser.run('drop policy "ledgerq: jobs of their owner" on realtime.messages')
        superuser.run("alter table realtime.messages owner to supabase_admin")
        sql.run(makes_policy)
        notice = notices[-1]
        assert "users may not join the channels of their jobs yet (must be owner of table messages)" in notice
        assert not may_join(database.dsn, "authenticated", claims(owner), topic_of(owner))
        superuser.run(notice.partition("run:")[2])
        assert may_join(database.dsn, "authenticated", claims(owner), topic_of(owner))


def test_the_tables_that_users_read_may_be_published(work: Work, dsn: str, owner: str) -> None:
    """The other way to be told. PostgreSQL refuses updates and deletions of a published table without replica identity."""
    with connected(dsn) as sql:
        assert sql.rows("select tablename from pg_publication_tables where pubname = 'supabase_realtime'") == []
        sql.run(f"alter publication supabase_realtime add table {', '.join(f'ledgerq.{table}' for table in READABLE)}")
        try:
            published = sql.rows("select tablename::text from pg_publication_tables where pubname = 'supabase_realtime'")
            assert {row[0] for row in published} == set(READABLE)
            list(busy_life(work, owner, random.Random(4)))
        finally:
            sql.run(f"alter publication supabase_realtime drop table {', '.join(f'ledgerq.{table}' for table in READABLE)}")


def test_the_page_about_it_says_what_is_so() -> None:
    page = (Path(__file__).parents[2] / "docs" / "realtime.md").read_text(encoding="utf-8")
    script = next(each.script for each in shipped_migrations() if each.name == "realtime")
    policy = re.search(r"create policy .*?'sub'\)\)", page, re.DOTALL)
    assert policy
    assert " ".join(policy[0].split()) in " ".join(script.split())
    assert f"const fields = '{','.join(TOLD)}'" in page
    assert "alter publication supabase_realtime add table " + ", ".join(f"ledgerq.{table}" for table in READABLE) in page
