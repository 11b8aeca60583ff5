"""`ingest` and `search` on a real installation."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.cli.conftest import Command, Installation

pytestmark = pytest.mark.processes


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


@pytest.fixture
def folder(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers can read too, whoever runs them."""
    made = installation.data_dir.parent / f"files-{uuid4()}"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def test_files_are_indexed_found_and_told_in_the_documented_shape(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "tides.md").write_text("# Tides\n\nThe moon pulls the sea, twice a day.\n\n## Ebb\n\nThe water falls again.\n")
    (folder / "wind.html").write_text("<html><body><main><h1>Wind</h1><p>Air that is in a hurry.</p></main></body></html>")
    ran = ledgerq("ingest", ".", "--tenant", tenant, "--json")
    assert ran.code == 0, ran.err
    assert set(ran.document) == {"jobs", "documents"}
    (job,) = ran.document["jobs"]
    assert (job["status"], job["total"], job["completed"]) == ("completed", 2, 2)
    assert [set(one) for one in ran.document["documents"]] == [{"uri", "document_id", "status", "error"}] * 2
    assert {one["uri"] for one in ran.document["documents"]} == {(folder / name).as_uri() for name in ("tides.md", "wind.html")}
    assert all(one["status"] == "indexed" and one["error"] is None and UUID(one["document_id"]) for one in ran.document["documents"])

    hits = ledgerq("search", "what does the moon do", "--tenant", tenant, "--json").document["hits"]
    assert set(hits[0]) == {"uri", "document_id", "chunk_id", "score", "snippet", "page", "heading"}
    assert hits[0]["uri"] == (folder / "tides.md").as_uri()
    assert hits[0]["heading"] == "Tides"
    assert "moon pulls the sea" in hits[0]["snippet"]
    shown = ledgerq("search", "hurry", "--limit", "1", "--tenant", tenant)
    assert shown.out.startswith(" 1. wind.html")


def test_tenants_do_not_see_each_others_documents(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "secret.txt").write_text("The combination of the safe is on the back of the clock.")
    assert ledgerq("ingest", "secret.txt", "--tenant", tenant).code == 0
    assert ledgerq("search", "combination of the safe", "--tenant", tenant, "--json").document["hits"] != []
    assert ledgerq("search", "combination of the safe", "--tenant", f"not-{tenant}", "--json").document["hits"] == []


def test_a_file_that_cannot_be_indexed_is_named_with_the_reason_and_3(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "good.txt").write_text("Tides come and go.")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4\nnot really\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    os.mkfifo(folder / "pipe.txt")
    ran = ledgerq("ingest", ".", "--tenant", tenant, "--json")
    assert ran.code == 3
    by_name = {Path(one["uri"]).name: one for one in ran.document["documents"]}
    assert {name: one["status"] for name, one in by_name.items()} == {
        "good.txt": "indexed",
        "bad.pdf": "failed",
        "picture.png": "skipped",
        "pipe.txt": "failed",
    }
    assert by_name["bad.pdf"]["document_id"] is not None
    assert by_name["bad.pdf"]["error"]
    assert by_name["pipe.txt"] == {
        "uri": (folder / "pipe.txt").as_uri(),
        "document_id": None,
        "status": "failed",
        "error": "is not a regular file",
    }
    told = ledgerq("ingest", ".", "--tenant", tenant)
    assert told.code == 3
    assert "failed    bad.pdf: " in told.out
    assert "skipped   picture.png: .png files are not taken from folders" in told.out
    assert told.out.splitlines()[-1].startswith("1 indexed, 2 failed, 1 skipped in ")


def test_many_files_that_are_skipped_for_one_reason_are_one_line(ledgerq: Command, folder: Path, tenant: str) -> None:
    for number in range(9):
        (folder / f"{number}.py").touch()
    told = ledgerq("ingest", ".", "--tenant", tenant)
    assert told.code == 0
    skipped = [line for line in told.out.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 1
    assert skipped[0].startswith("skipped   9 files like 0.py: .py files are not taken from folders")


def test_an_empty_path_is_not_the_working_directory(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "good.txt").write_text("Tides come and go.")
    ran = ledgerq("ingest", "", "--tenant", tenant, "--json")
    assert (ran.code, ran.document["error"]["code"]) == (2, 2)
    assert "PATH" in ran.document["error"]["message"]


def test_a_file_that_vanishes_before_its_turn_is_a_failure_that_names_it(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "brief.txt").write_text("Here today.")
    ledgerq("queue", "pause")
    try:
        accepted = ledgerq("ingest", "brief.txt", "--tenant", tenant, "--no-wait", "--json")
        (folder / "brief.txt").unlink()
    finally:
        ledgerq("queue", "resume")
    assert accepted.code == 0
    assert [one["status"] for one in accepted.document["documents"]] == ["pending"]
    job = accepted.document["jobs"][0]["id"]
    assert ledgerq("jobs", "watch", job).code == 3
    shown = ledgerq("jobs", "show", job)
    assert "brief.txt" in shown.out
    assert "No such file" in shown.out or "gone" in shown.out


def test_the_same_files_again_are_the_same_documents(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "tides.txt").write_text("Tides come and go.")
    first = ledgerq("ingest", "tides.txt", "--tenant", tenant, "--json").document["documents"]
    again = ledgerq("ingest", "tides.txt", "./tides.txt", "--tenant", tenant, "--json").document["documents"]
    assert again == first
    named = ledgerq("ingest", "tides.txt", "--tenant", tenant, "--source", "almanac", "--json").document["documents"]
    assert named[0]["document_id"] != first[0]["document_id"]


def test_a_changed_file_replaces_what_was_found_before(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "news.txt").write_text("The ferry leaves at eight.")
    ledgerq("ingest", "news.txt", "--tenant", tenant)
    (folder / "news.txt").write_text("The ferry leaves at nine.")
    assert ledgerq("ingest", "news.txt", "--tenant", tenant).code == 0
    (hit,) = ledgerq("search", "when does the ferry leave", "--tenant", tenant, "--json").document["hits"]
    assert hit["snippet"] == "The ferry leaves at nine."


def test_nothing_that_can_be_read_is_no_job(ledgerq: Command, folder: Path, tenant: str) -> None:
    ran = ledgerq("ingest", str(folder), "--tenant", tenant, "--json")
    assert (ran.code, ran.document) == (0, {"jobs": [], "documents": []})


def test_progress_is_told_on_stderr_and_results_on_stdout(ledgerq: Command, folder: Path, tenant: str) -> None:
    (folder / "tides.txt").write_text("Tides come and go.")
    ran = ledgerq("ingest", "tides.txt", "--tenant", tenant)
    assert "tides.txt: 1 of 1, completed" in ran.err
    assert ran.out.startswith("1 indexed in ")
