"""The stack as its users see it: up, status, down, and kill -9 of anything in between."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

from ledgerq.errors import LocalStackError
from ledgerq.local import PartStatus, Phase, ServerName, Service, Stack, orphans
from ledgerq.local import layout as layout_module
from ledgerq.local.layout import AlreadyRunning, Claim, Layout, is_claimed
from ledgerq.local.signals import StopSignals
from ledgerq.local.state import PartState
from tests.support.directories import server_directory
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

SLEEPER = "import os, time; print(os.getpid(), os.environ.get('REDIS_URL'), flush=True); time.sleep(1000)"
WITH_A_CHILD = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
time.sleep(1000)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"


def service(name: str, code: str, *, settle_s: float = 0.3) -> Service:
    return Service(name=name, argv=(sys.executable, "-c", code), settle_s=settle_s)


def vectors(stack: Stack) -> closing[QdrantClient]:
    addresses = stack.addresses()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return closing(QdrantClient(url=addresses.qdrant_url, api_key=addresses.qdrant_api_key, check_compatibility=False))


def small(data_dir: Path, *services: Service, grace_s: float = 5.0) -> Stack:
    """With the quickest server only: supervision does not depend on which."""
    return Stack(data_dir, servers=[ServerName.VALKEY], services=services, grace_s=grace_s)


def part(stack: Stack, name: str) -> PartStatus:
    return next(found for found in stack.status().parts if found.name == name)


def kill(pid: int | None) -> None:
    assert pid
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def data_dir(server_dir: Path) -> Iterator[Path]:
    """Nothing may be left running in it, whatever the test did."""
    yield server_dir / "stack"
    Stack(server_dir / "stack").down(grace_s=0.0)
    eventually(lambda: working_on(server_dir) == [], seconds=20.0, what="nothing is left running")


def test_whole_stack_comes_up_recovers_keeps_its_data_and_goes_down(server_dir: Path) -> None:
    """Below a closed directory, as root's home or one of `mktemp -d` is: the servers' account may not pass through."""
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    stack = Stack(closed / "stack", services=[service("worker-1", SLEEPER)], fsync=False)
    try:
        status = stack.up()
        assert status.ok
        assert [(found.name, found.state) for found in status.parts] == [
            ("postgres", PartState.ANSWERS),
            ("valkey", PartState.ANSWERS),
            ("vectors", PartState.ANSWERS),
            ("worker-1", PartState.RUNS),
        ]
        environment = stack.environment()
        assert sorted(environment) == ["DATABASE_URL", "QDRANT_API_KEY", "QDRANT_URL", "REDIS_URL"]
        with psycopg.connect(environment["DATABASE_URL"]) as connection:
            assert connection.execute("select current_user::text").fetchone() == ("ledgerq_service",)
        for found in status.parts:
            kill(found.pid)
        eventually(lambda: stack.status().ok and all(found.restarts == 1 for found in stack.status().parts), what="all parts are back")
        assert stack.environment() == environment
        put_something_into(stack)
        assert stack.down()
        assert (stack.status().phase, stack.status().running, stack.status().ok) == (Phase.STOPPED, False, False)
        assert working_on(server_dir) == []
        assert stack.up().ok
        assert stack.environment() == environment
        assert something_is_in(stack)
    finally:
        stack.down(grace_s=0.0)


def put_something_into(stack: Stack) -> None:
    with psycopg.connect(stack.addresses().migration_url or "") as connection:
        connection.execute("create table kept as select 1 as n")
    with redis.Redis.from_url(stack.environment()["REDIS_URL"]) as client:
        client.set("kept", "1")
    with vectors(stack) as client:
        client.create_collection("kept", vectors_config=VectorParams(size=2, distance=Distance.COSINE))
        client.upsert("kept", [PointStruct(id=1, vector=[1.0, 0.0])], wait=True)


def something_is_in(stack: Stack) -> bool:
    with psycopg.connect(stack.addresses().migration_url or "") as connection:
        row = connection.execute("select n from kept").fetchone()
    with redis.Redis.from_url(stack.environment()["REDIS_URL"]) as client:
        value = client.get("kept")
    with vectors(stack) as client:
        points = client.count("kept").count
    return (row, value, points) == ((1,), b"1", 1)


@pytest.fixture(scope="module")
def shared() -> Iterator[Stack]:
    """A small stack for tests that leave it as it is. Its service prints where it was told that Redis is."""
    show = "import os, time; print([v for k, v in os.environ.items() if k.endswith('REDIS_URL')], flush=True); time.sleep(1000)"
    with pytest.MonkeyPatch.context() as patch, server_directory("shared") as directory:
        patch.setenv("REDIS_URL", "redis://elsewhere")
        patch.setenv("LEDGERQ_REDIS_URL", "redis://elsewhere")
        stack = small(directory / "stack", service("show", show))
        try:
            stack.up()
            yield stack
        finally:
            stack.down(grace_s=0.0)


def test_status_tells_no_password(shared: Stack) -> None:
    text = shared.status().model_dump_json()
    password = shared.environment()["REDIS_URL"].split(":")[2].split("@")[0]
    assert password not in text
    file = shared.data_dir / "stack.json"
    assert password in json.loads(file.read_text())["addresses"]["redis_url"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_second_start_is_refused_and_the_first_left_alone(shared: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "LOCK_SECONDS", 0.1)
    pid = shared.status().supervisor_pid
    with pytest.raises(LocalStackError, match=rf"already runs in .* \(supervisor pid {pid}\).*ledgerq down"):
        small(shared.data_dir).up()
    assert shared.status().ok


def test_start_that_comes_a_moment_too_late_leaves_the_first_alone(shared: Stack) -> None:
    """It has seen a free directory, and somebody else was quicker."""
    second = small(shared.data_dir)
    plan = second._plan.model_copy(update={"run_id": "second"})
    with pytest.raises(AlreadyRunning, match="already runs"), StopSignals() as signals:
        second._launch(plan, signals)
    assert shared.status().ok


def test_services_get_the_addresses_whatever_the_environment_said(shared: Stack) -> None:
    expected = str([shared.environment()["REDIS_URL"]])
    assert eventually(lambda: shared.log("show").read_text().strip()) == expected


def test_one_directory_under_two_names_is_one_stack(shared: Stack) -> None:
    link = shared.data_dir.with_name("link")
    link.symlink_to(shared.data_dir)
    for name in (link, shared.data_dir / ".." / shared.data_dir.name):
        assert small(name).status() == shared.status()


def test_those_who_ask_are_not_in_each_others_way(data_dir: Path) -> None:
    data_dir.mkdir()
    layout = Layout(data_dir)
    layout.lock_file.touch()
    with layout.lock_file.open() as somebody:
        fcntl.flock(somebody, fcntl.LOCK_SH)  # asks at this moment
        assert not is_claimed(layout)
    with Claim(layout):
        assert is_claimed(layout)
    layout.lock_file.unlink()
    data_dir.rmdir()


def test_running_stack_of_another_version_is_seen_and_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade, say: the new version could not read the directory."""
    stack = small(data_dir)
    pid = stack.up().supervisor_pid
    with monkeypatch.context() as upgraded:
        upgraded.setattr(layout_module, "LAYOUT", "ledgerq-stack 2")
        assert (stack.status().running, stack.status().supervisor_pid) == (True, pid)
        (data_dir / "stack.json").write_text('{"of": "a later version"}')
        assert (stack.status().running, stack.status().ok) == (True, False)
        assert stack.down()
        assert working_on(data_dir) == []
        with pytest.raises(LocalStackError, match="another version of ledgerq"):
            stack.status()


def test_stack_whose_directory_is_removed_ends_and_leaves_the_next_one_alone(data_dir: Path) -> None:
    small(data_dir, service("parent", WITH_A_CHILD)).up()
    before = {line.split()[0] for line in working_on(data_dir)}
    shutil.rmtree(data_dir)
    second = small(data_dir, service("sleeper", SLEEPER))
    assert second.up().ok
    eventually(lambda: not before & {line.split()[0] for line in working_on(data_dir)}, what="the first one has ended")
    assert second.status().ok
    assert part(second, "sleeper").restarts == 0


def test_killed_supervisor_is_cleared_up_after_by_the_next_start(data_dir: Path) -> None:
    """Also what its services had started in sessions of their own."""
    stack = small(data_dir, service("parent", WITH_A_CHILD))
    before = stack.up()
    eventually(lambda: "1000" in "".join(working_on(data_dir)) and len(working_on(data_dir)) >= 4, what="the grandchild runs")
    kill(before.supervisor_pid)
    after = stack.up()
    assert after.ok
    assert after.supervisor_pid != before.supervisor_pid
    assert not {found.pid for found in before.parts} & {found.pid for found in after.parts}
    eventually(lambda: len(working_on(data_dir)) == 4, what="one supervisor, one server, one service and its child")


def test_down_ends_what_a_killed_supervisor_left(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        orphans,
        "SERVICE_STEPS",
        [(number, min(seconds, 0.2) if number is signal.SIGTERM else seconds) for number, seconds in orphans.SERVICE_STEPS],
    )
    stack = small(data_dir, service("deaf", STUBBORN), service("parent", WITH_A_CHILD))
    status = stack.up()
    eventually(lambda: "deaf" in stack.log("deaf").read_text(), what="it ignores SIGTERM by now")
    kill(status.supervisor_pid)
    assert stack.down()
    assert working_on(data_dir) == []
    assert not stack.down()


def test_recycled_pid_is_never_signalled(data_dir: Path) -> None:
    """The record names our own pid, with the start time of another process."""
    stack = small(data_dir)
    stack.up()
    stack.down()
    state = json.loads((data_dir / "stack.json").read_text())
    state["phase"] = "ready"
    state["parts"] = [{"name": "postgres", "pid": os.getpid(), "started": "another-boot/1", "port": None, "restarts": 0}]
    (data_dir / "stack.json").write_text(json.dumps(state))
    assert not stack.down()
    assert stack.status().parts == ()


def test_service_that_keeps_dying_is_told_of_and_ends_nothing(data_dir: Path) -> None:
    # However slow its start is, it dies before it would count as running.
    broken_service = service("broken", "import sys; print('no such table'); sys.exit(7)", settle_s=60.0)
    stack = small(data_dir, broken_service, service("fine", SLEEPER))
    status = stack.up()
    assert not status.ok
    broken = part(stack, "broken")
    assert (broken.state, broken.problem) == (PartState.RESTARTING, "ended with exit code 7: no such table")
    eventually(lambda: part(stack, "broken").restarts > 1, what="it is tried again")
    assert [(found.name, found.answering) for found in stack.status().parts] == [("valkey", True), ("broken", False), ("fine", True)]
    assert stack.environment()


def test_deaf_service_is_ended_after_its_grace(data_dir: Path) -> None:
    stack = small(data_dir, service("deaf", STUBBORN), grace_s=0.2)
    stack.up()
    eventually(lambda: "deaf" in stack.log("deaf").read_text(), what="it ignores SIGTERM by now")
    assert stack.down(grace_s=0.0)
    assert working_on(data_dir) == []


def test_log_is_bounded(data_dir: Path) -> None:
    from ledgerq.local import child

    log = data_dir / "a.log"
    data_dir.mkdir()
    with child.open_log(log) as file:
        file.write(b"x" * child.LOG_LIMIT + b"the end\n")
        file.flush()
        child.trim_log(log)
        file.write(b"and on\n")
    assert log.read_bytes() == b"and on\n"
    assert log.with_name("a.log.1").read_bytes().endswith(b"the end\n")
    log.unlink()
    log.with_name("a.log.1").unlink()
    data_dir.rmdir()
