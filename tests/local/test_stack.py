"""The stack as its users see it: up, status, down, and kill -9 of anything in between."""

from __future__ import annotations

import json
import os
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
from ledgerq.local import PartStatus, Phase, ServerName, Service, Stack
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


def service(name: str, code: str) -> Service:
    return Service(name=name, argv=(sys.executable, "-c", code))


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


def test_whole_stack_comes_up_recovers_and_goes_down(data_dir: Path) -> None:
    stack = Stack(data_dir, services=[service("worker-1", SLEEPER)], fsync=False)
    status = stack.up()
    assert status.ok
    assert [found.name for found in status.parts] == ["postgres", "valkey", "vectors", "worker-1"]
    environment = stack.environment()
    assert sorted(environment) == ["DATABASE_URL", "QDRANT_API_KEY", "QDRANT_URL", "REDIS_URL"]
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        assert connection.execute("select current_user::text").fetchone() == ("ledgerq_service",)
    for name in ("postgres", "valkey", "vectors", "worker-1"):
        kill(part(stack, name).pid)
    eventually(lambda: stack.status().ok and all(found.restarts == 1 for found in stack.status().parts), what="all parts are back")
    assert stack.environment() == environment
    assert stack.down()
    assert (stack.status().phase, stack.status().running, stack.status().ok) == (Phase.STOPPED, False, False)
    assert working_on(data_dir) == []


def test_status_tells_no_password(data_dir: Path) -> None:
    stack = small(data_dir)
    text = stack.up().model_dump_json()
    password = stack.environment()["REDIS_URL"].split(":")[2].split("@")[0]
    assert password not in text
    assert password in stack_file(data_dir)["addresses"]["redis_url"]
    assert (data_dir / "stack.json").stat().st_mode & 0o777 == 0o600


def stack_file(data_dir: Path) -> dict[str, dict[str, str]]:
    return json.loads((data_dir / "stack.json").read_text())


def test_second_start_is_refused_and_the_first_left_alone(data_dir: Path) -> None:
    stack = small(data_dir)
    pid = stack.up().supervisor_pid
    with pytest.raises(LocalStackError, match=rf"already runs in .* \(supervisor pid {pid}\).*ledgerq down"):
        small(data_dir).up()
    assert stack.status().ok


def test_data_and_ports_are_the_same_after_a_restart(data_dir: Path) -> None:
    stack = small(data_dir)
    stack.up()
    url = stack.environment()["REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        client.set("kept", "1")
    stack.down()
    stack.up()
    assert stack.environment()["REDIS_URL"] == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"1"


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


def test_down_ends_what_a_killed_supervisor_left(data_dir: Path) -> None:
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


def test_part_that_keeps_dying_ends_the_stack_loudly(data_dir: Path) -> None:
    stack = small(data_dir, service("broken", "import sys; print('no such table'); sys.exit(7)"))
    stack.up()
    eventually(lambda: not stack.status().running, what="it is given up")
    status = stack.status()
    assert status.phase is Phase.FAILED
    assert status.error
    assert "broken failed 5 times in a row, given up" in status.error
    assert "no such table" in status.error
    eventually(lambda: working_on(data_dir) == [], what="the supervisor itself ends")
    with pytest.raises(LocalStackError, match="no stack runs in"):
        stack.environment()


def test_deaf_service_is_ended_after_its_grace(data_dir: Path) -> None:
    stack = small(data_dir, service("deaf", STUBBORN), grace_s=0.2)
    stack.up()
    eventually(lambda: "deaf" in stack.log("deaf").read_text(), what="it ignores SIGTERM by now")
    assert stack.down(grace_s=0.0)
    assert working_on(data_dir) == []


def test_services_get_the_addresses_whatever_the_environment_said(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("LEDGERQ_REDIS_URL", "redis://elsewhere")
    show = "import os, time; print([v for k, v in os.environ.items() if k.endswith('REDIS_URL')], flush=True); time.sleep(1000)"
    stack = small(data_dir, service("show", show))
    stack.up()
    expected = str([stack.environment()["REDIS_URL"]])
    assert eventually(lambda: stack.log("show").read_text().strip()) == expected


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


def test_directory_below_a_closed_one(data_dir: Path) -> None:
    """As in root's home, or in a directory that `mktemp -d` has made: the servers' account may not pass through."""
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    stack = Stack(closed / "stack", fsync=False)
    try:
        assert stack.up().ok
        kill(part(stack, "postgres").pid)
        eventually(lambda: stack.status().ok and part(stack, "postgres").restarts == 1, what="PostgreSQL is back")
        with psycopg.connect(stack.addresses().migration_url or "") as connection:
            connection.execute("create table kept as select 1 as n")
        with vectors(stack) as client:
            client.create_collection("kept", vectors_config=VectorParams(size=2, distance=Distance.COSINE))
            client.upsert("kept", [PointStruct(id=1, vector=[1.0, 0.0])], wait=True)
        stack.down()
        assert stack.up().ok
        with psycopg.connect(stack.addresses().migration_url or "") as connection:
            assert connection.execute("select n from kept").fetchone() == (1,)
        with vectors(stack) as client:
            assert client.count("kept").count == 1
    finally:
        stack.down(grace_s=0.0)
