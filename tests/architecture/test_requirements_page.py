"""What was asked for is answered item by item: none is missing, none is twice, and what is there says where."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "requirements.md"
ITEMS = {"S0": 22, "S1": 36, "S2": 89, "S3": 76, "S4": 23}
TRAPS = 31


def rows() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if cells and re.fullmatch(r"S\d-\d+|T\d+", cells[0]):
            assert cells[0] not in found, f"{cells[0]} is answered twice"
            found[cells[0]] = cells[1:]
    return found


def test_every_item_and_every_trap_is_answered_once() -> None:
    wanted = {f"{document}-{number}" for document, count in ITEMS.items() for number in range(1, count + 1)}
    assert set(rows()) == wanted | {f"T{number}" for number in range(1, TRAPS + 1)}


def test_an_item_is_there_and_says_where_or_is_planned() -> None:
    for item, cells in rows().items():
        if item.startswith("T"):
            continue
        asked_for, standing, where = cells
        assert asked_for, item
        assert standing in {"yes", "else", "planned"}, item
        assert where.strip("| ") or standing == "planned", item
