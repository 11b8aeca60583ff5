"""Logs of commands, also those of loggers that are not ours."""

from __future__ import annotations

import json

import pytest
import structlog

from ledgerq.cli.log_output import show_logs
from ledgerq.settings import Settings


def fail() -> None:
    password = "hush" + "-hush"
    raise ZeroDivisionError(len(password))


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_logged_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    before = structlog.get_config()
    try:
        show_logs(Settings(log_format=form), debug=False)
        try:
            fail()
        except ZeroDivisionError:
            structlog.get_logger().exception("something failed")
    finally:
        structlog.configure(**before)
    said = capsys.readouterr()
    assert said.out == ""
    assert "ZeroDivisionError: 9" in said.err
    assert "hush-hush" not in said.err
    assert "\x1b[" not in said.err
    if form == "json":
        assert json.loads(said.err)["event"] == "something failed"
