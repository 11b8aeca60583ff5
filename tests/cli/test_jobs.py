"""`jobs` and `queue` on a real installation."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.cli.conftest import Command, Installation

pytestmark = pytest.mark.processes


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


@pytest.fixture
def created(ledgerq: Command, tenant: str) -> str:
    """A job that nobody works on before its time."""
    ran = ledgerq("jobs", "create", "double", "--payload", "21", "--tenant", tenant, "--delay", "1h", "--json")
    assert ran.code == 0
    return ran.document["job"]["id"]


def test_a_job_is_created_waited_for_and_shown(ledgerq: Command, tenant: str) -> None:
    ran = ledgerq("jobs", "create", "double", "--payload", "21", "--tenant", tenant, "--wait", "--json")
    assert ran.code == 0
    (job,) = ran.document["jobs"]
    assert (job["status"], job["completed"], job["tenant"]) == ("completed", 1, tenant)
    shown = ledgerq("jobs", "show", job["id"], "--json").document
    assert set(shown) == {"job", "explain", "failed_tasks", "history"}
    assert shown["explain"]["sentence"]
    assert shown["history"][0]["kind"] == "created"


def test_a_job_that_failed_is_3_and_its_error_is_shown(ledgerq: Command, tenant: str) -> None:
    ran = ledgerq("jobs", "create", "double", "--payload", '"x"', "--tenant", tenant, "--wait")
    assert ran.code == 3
    job = ran.out.split()[0]
    shown = ledgerq("jobs", "show", job)
    assert "a number is needed" in shown.out
    assert "Failed tasks" in shown.out
    assert "History" in shown.out
    assert ledgerq("jobs", "retry", job).code == 0
    assert ledgerq("jobs", "watch", job).code == 3


def test_many_tasks_come_from_a_file(ledgerq: Command, tenant: str, tmp_path: Path) -> None:
    lines = [f'{{"key": "k{number}", "payload": {number}}}' for number in range(20)]
    (tmp_path / "tasks.jsonl").write_text("\n".join([*lines, "", lines[0]]))
    ran = ledgerq("jobs", "create", "double", "--tasks", "tasks.jsonl", "--tenant", tenant, "--wait", "--json")
    assert ran.code == 0
    assert ran.document["jobs"][0]["completed"] == 20


def test_jobs_are_listed_newest_first_and_page_by_page(ledgerq: Command, tenant: str) -> None:
    made = [
        ledgerq("jobs", "create", "double", "--payload", "1", "--tenant", tenant, "--delay", "1h", "--json").document["job"]["id"]
        for _ in range(3)
    ]
    first = ledgerq("jobs", "list", "--tenant", tenant, "--limit", "2", "--json").document
    rest = ledgerq("jobs", "list", "--tenant", tenant, "--limit", "2", "--after", first["next"], "--json").document
    assert [job["id"] for job in [*first["jobs"], *rest["jobs"]]] == made[::-1]
    assert rest["next"] is None
    shown = ledgerq("jobs", "list", "--tenant", tenant)
    assert all(job in shown.out for job in made)
    assert "pending" in shown.out


def test_lists_are_filtered_by_status(ledgerq: Command, tenant: str, created: str) -> None:
    assert ledgerq("jobs", "list", "--tenant", tenant, "--status", "completed", "--json").document["jobs"] == []
    (job,) = ledgerq("jobs", "list", "--tenant", tenant, "--status", "completed", "--status", "pending", "--json").document["jobs"]
    assert job["id"] == created


def test_a_job_is_cancelled_once_and_then_deleted(ledgerq: Command, created: str) -> None:
    assert ledgerq("jobs", "delete", created).code == 6
    ran = ledgerq("jobs", "cancel", created, "--reason", "changed my mind", "--json")
    assert (ran.code, ran.document["jobs"][0]["applied"]) == (0, True)
    assert "changed my mind" in str(ledgerq("jobs", "show", created, "--json").document)
    assert ledgerq("jobs", "delete", created).out == f"{created}: deleted\n"
    gone = ledgerq("jobs", "show", created)
    assert (gone.code, gone.err) == (5, f"ledgerq: there is no job {created}\n")


def test_one_job_that_cannot_be_had_keeps_no_other_from_it(ledgerq: Command, created: str) -> None:
    unknown = str(uuid4())
    ran = ledgerq("jobs", "cancel", unknown, created, "--json")
    assert ran.code == 5
    assert [one["applied"] for one in ran.document["jobs"]] == [False, True]
    assert ran.document["error"]["kind"] == "NotFound"


@pytest.mark.parametrize("what", ["show", "watch", "cancel", "retry", "delete"])
def test_what_is_no_id_is_named(ledgerq: Command, what: str) -> None:
    ran = ledgerq("jobs", what, "nonsense", "--json")
    assert ran.code == 2
    assert "nonsense" in ran.document["error"]["message"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["double", "--payload", "{"], "--payload: not JSON"),
        (["double", "--tasks", "nowhere"], "--tasks: cannot read nowhere"),
        (["double", "--priority", "highest"], "highest"),
        (["double", "--due-at", "tomorrow"], "--due-at: 'tomorrow' is no time"),
        (["double", "--due-at", "2031-05-04T09:30:00"], "time zone"),
        (["double", "--timeout", "0s"], "timeout"),
        (["double", "--timeout", "soon"], "soon"),
        (["double", "--max-attempts", "0"], "max_attempts"),
        (["double", "--queue", "nowhere"], "nowhere"),
        (["Bad Type"], "Bad Type"),
    ],
)
def test_bad_requests_name_what_is_wrong(ledgerq: Command, words: list[str], says: str) -> None:
    ran = ledgerq("jobs", "create", *words)
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_an_unknown_type_is_named_where_the_app_is_known(
    ledgerq: Command, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installation.data_dir.parent))
    monkeypatch.setenv("LEDGERQ_APP", installation.app)
    ran = ledgerq("jobs", "create", "treble")
    assert ran.code == 2
    assert "'treble'; known types: " in ran.err


def test_a_dedupe_key_finds_the_job_that_stands(ledgerq: Command, tenant: str) -> None:
    words = ["jobs", "create", "double", "--payload", "1", "--tenant", tenant, "--delay", "1h", "--dedupe-key", "one"]
    first = ledgerq(*words, "--json").document["job"]
    again = ledgerq(*words)
    assert again.out == f"an unfinished job holds this dedupe key: {first['id']} (pending)\n"


def test_a_queue_is_paused_and_goes_on(ledgerq: Command) -> None:
    assert ledgerq("queue", "pause", "--json").document == {"queue": "processing", "paused": True}
    try:
        (queue,) = ledgerq("queue", "stats", "processing", "--json").document["queues"]
        assert queue["paused"]
        assert "paused" in ledgerq("queue", "stats").out
    finally:
        assert ledgerq("queue", "resume").out == "processing goes on\n"


def test_a_queue_is_made_and_changed(ledgerq: Command) -> None:
    made = ledgerq("queue", "save", "mails", "--depth", "3", "--json").document["queue"]
    assert (made["queue"], made["depth"]) == ("mails", 3)
    assert ledgerq("queue", "save", "mails", "--run-size", "10").out == "mails is there: at most 3 runs of it wait in Redis\n"
    wrong = ledgerq("queue", "save", "mails", "--depth", "0")
    assert (wrong.code, "depth: 0" in wrong.err) == (2, True)


def test_an_unknown_queue_is_named(ledgerq: Command) -> None:
    ran = ledgerq("queue", "pause", "nowhere")
    assert ran.code == 2
    assert "nowhere" in ran.err


def test_a_watch_ends_with_its_jobs(ledgerq: Command, tenant: str) -> None:
    made = ledgerq("jobs", "create", "double", "--payload", "4", "--tenant", tenant, "--json").document["job"]["id"]
    ran = ledgerq("jobs", "watch", made)
    assert ran.code == 0
    assert made in ran.out
    assert UUID(made)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("5", "tasks.jsonl, line 2: is no object"),
        ('{"key": "b", "load": 1}', "tasks.jsonl, line 2: load: Extra inputs are not permitted"),
        ('{"payload": 1}', "tasks.jsonl, line 2: key: Field required"),
        ('{"key": "b", "payload": ' + "[" * 60_000, "tasks.jsonl, line 2: is nested too deeply"),
    ],
    ids=["number", "wrong key", "no key", "deep"],
)
def test_a_line_that_is_no_task_is_named(ledgerq: Command, tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(f'{{"key": "a"}}\n{line}\n')
    ran = ledgerq("jobs", "create", "double", "--tasks", "tasks.jsonl")
    assert ran.code == 2
    assert ran.err.startswith(f"ledgerq: {says}")
    assert ran.err.count("\n") == 1


def test_a_payload_that_is_nested_too_deeply_is_named(ledgerq: Command) -> None:
    ran = ledgerq("jobs", "create", "double", "--payload", "[" * 60_000)
    assert (ran.code, ran.err) == (2, "ledgerq: --payload: is nested too deeply\n")


@pytest.mark.parametrize("words", [["jobs", "list", "--queue", "nowhere"], ["worker", "--queue", "nowhere", "--burst"]], ids=" ".join)
def test_a_queue_that_does_not_exist_is_named(ledgerq: Command, words: list[str]) -> None:
    ran = ledgerq(*words)
    assert ran.code == 2
    assert re.fullmatch(r"ledgerq: there is no queue 'nowhere'; there (is|are) [^\n]*processing\n", ran.err)


def test_what_is_named_on_the_command_line_is_no_markup(ledgerq: Command) -> None:
    ran = ledgerq("jobs", "cancel", "[/red]")
    assert (ran.code, ran.err) == (2, "ledgerq: job_id: '[/red]' is no UUID\n")
    paused = ledgerq("queue", "pause")
    try:
        assert "`ledgerq queue resume --data-dir " in paused.out
    finally:
        assert ledgerq("queue", "resume").code == 0
