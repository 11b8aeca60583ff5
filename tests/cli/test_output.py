"""What commands print."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ledgerq.cli.output import Output, printable, problem, short_seconds, short_time, write_json
from ledgerq.errors import NotFound
from ledgerq.models import RunTicket

ID = UUID("01a202f0-3dd5-7a75-a4b6-2beed43ff785")


@dataclass
class Thing:
    when: datetime
    where: Path


def printed(capsys: pytest.CaptureFixture[str], value: object) -> Any:
    write_json(value)
    return json.loads(capsys.readouterr().out)


def test_json_says_models_times_and_ids_as_a_reader_expects_them(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2031, 5, 4, 9, 30, tzinfo=UTC)
    value = {"a": Thing(moment, Path("/x")), "b": (ID,), "c": RunTicket(run=ID, queue="q", type="t"), "d": "Ärger", "e": {1}}
    found = printed(capsys, value)
    assert found["a"] == {"when": "2031-05-04T09:30:00+00:00", "where": "/x"}
    assert (found["b"], found["c"]["run"], found["d"], found["e"]) == ([str(ID)], str(ID), "Ärger", [1])


def test_what_has_no_json_form_is_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        printed(capsys, object())


def test_json_mode_is_silent_but_for_its_document(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.print("x")
    output.text("x")
    output.complain("x")
    output.table(("a",), [("x",)], empty="none")
    output.document({"a": 1})
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{"a": 1}\n', "")


def test_text_mode_prints_no_document_and_takes_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.document({"a": 1})
    output.text("[bold] is not markup")
    output.table(("name", ""), [("[red]", None)], empty="none")
    output.table(("name",), [], empty="there are none")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "[bold] is not markup"
    assert "[red]" in out
    assert out.endswith("there are none\n")


def test_nothing_is_cut_for_a_screen_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("a", "b"), [("x" * 120, "y" * 120)], empty="")
    assert "x" * 120 + "  " + "y" * 120 in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (604_800, "7 d")],
)
def test_durations_are_told_in_the_two_units_that_matter(seconds: float | None, text: str) -> None:
    assert short_seconds(seconds) == text


def test_no_time_is_no_text() -> None:
    assert short_time(None) == ""
    assert len(short_time(datetime(2031, 5, 4, tzinfo=UTC))) == 19


def test_a_problem_carries_its_code() -> None:
    assert problem(NotFound("there is no job")) == {"code": 5, "kind": "NotFound", "message": "there is no job"}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, *, columns: int) -> Screen:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    return screen


@pytest.mark.parametrize("columns", [30, 59, 60, 100])
def test_what_a_row_is_about_is_whole_on_every_screen(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = terminal(monkeypatch, columns=columns)
    Output(as_json=False).table(("job", "type", "status", "error"), [(ID, "process", "failed", None)], empty="")
    assert str(ID) in screen.getvalue()
    assert screen.getvalue().startswith(f"job: {ID}\ntype: process\nstatus: failed\n") is (columns < 60)


def test_facts_on_a_narrow_screen_are_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch, columns=30)
    Output(as_json=False).table(("", ""), [("job", ID), ("type", "process")], empty="")
    assert screen.getvalue() == f"job: {ID}\ntype: process\n"


def test_nothing_that_a_terminal_would_obey_reaches_it(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    evil = "a\x1b[2Jb\x9bc\rd\udcffe"
    output.text(evil)
    output.print(evil)
    output.note(evil)
    output.complain(evil)
    output.table(("x",), [(evil,)], empty="")
    captured = capsys.readouterr()
    plain = "a\\x1b[2Jb\\x9bc\\rd\\udcffe"
    assert captured.out.split() == [plain, plain, "x", plain]
    assert captured.err == f"{plain}\nledgerq: {plain}\n"


def test_lines_stay_lines_unless_it_is_a_name() -> None:
    assert printable("a\n\tb") == "a\n\tb"
    assert printable("a\n\tb", lines=False) == "a\\n\\tb"


def test_brackets_are_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).print("[bold]queue[/nothing] [red]")
    assert capsys.readouterr().out == "[bold]queue[/nothing] [red]\n"
