"""Streams that are closed, read by nobody, or of another encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerq.cli.output import Output, write_json

LEDGERQ = f"{sys.executable} -P -m ledgerq"


def shell(script: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    known = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, check=False, cwd=directory, env=known)


def nobody_reads() -> int:
    """A pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("words", [["--help"], ["jobs"], ["status", "--json"]], ids=" ".join)
def test_a_reader_of_results_that_goes_away_ends_the_command_as_a_shell_expects(tmp_path: Path, words: list[str]) -> None:
    writer = nobody_reads()
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "ledgerq", *words], stdout=writer, stderr=subprocess.PIPE, check=False, cwd=tmp_path
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_reader_of_notes_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    script = """
from ledgerq.cli.streams import settle
settle()
from ledgerq.cli.output import Output, complain
from ledgerq.cli.watch import _Lines
for _ in range(3):
    Output(as_json=False).note("note"); Output(as_json=False).complain("complaint"); _Lines().say("progress")
print("the end")
"""
    writer = nobody_reads()
    try:
        ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writer, check=False, cwd=tmp_path)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stdout) == (0, b"the end\n")


def test_notes_fail_nowhere_even_where_nothing_was_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = os.fdopen(nobody_reads(), "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", broken)
    Output(as_json=False).note("note")
    Output(as_json=False).complain("complaint")
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        broken.close()


def test_closed_streams_lead_nowhere(tmp_path: Path) -> None:
    ended = shell(
        f"{LEDGERQ} status --json >&-; echo $?; {LEDGERQ} search ' ' 2>&-; echo $?; {LEDGERQ} search ' ' >&- 2>&-; echo $?", tmp_path
    )
    assert (ended.stdout, ended.stderr) == (b"4\n2\n2\n", b"")


def test_help_can_be_written_in_any_encoding(tmp_path: Path) -> None:
    ended = shell(f"{LEDGERQ} ingest --help", tmp_path, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"--no-wait" in ended.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    write_json({"text": "Ärger 東京 \udcff"})
    assert json.loads(written.getvalue().decode("utf-8")) == {"text": "Ärger 東京 \udcff"}
