"""The page about the command line names every command, option that decides something, and exit code."""

from __future__ import annotations

import re
from pathlib import Path

from ledgerq.cli.exit_codes import ExitCode
from ledgerq.cli.ingesting import DocumentStatus
from tests.cli.test_contract import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_command_is_on_the_page() -> None:
    missing = [name for name in COMMANDS if f"`{name}" not in PAGE]
    assert missing == []


def test_every_option_on_the_page_exists() -> None:
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= known


def test_every_exit_code_is_in_its_table() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)] == [int(code) for code in ExitCode]


def test_every_status_of_a_document_is_explained() -> None:
    assert re.findall(r"^- `(\w+)`:", PAGE, flags=re.MULTILINE) == [str(status) for status in DocumentStatus]
