"""Whatever a handler returns, its window can be acknowledged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerq.errors import InvalidInput
from ledgerq.ledger import LedgerStore, Returned, TaskReport
from ledgerq.ledger.outcome_json import ERROR_BYTES, RESULT_BYTES, fixed, outcome_json, printed_size
from ledgerq.models import JsonObject
from ledgerq.outcomes import Cancelled, Completed, DocumentEffect, Failed, Outcome, Retry, TaskError, Usage

USAGE = Usage(id=UUID(int=7), provider="openai", model="m", tokens=12, cost=0.5)
EFFECT = DocumentEffect(document=UUID(int=1), revision=2, generation=3, points=4, digest="a" * 64, chunks=4, usage=(USAGE,))


def entry_of(outcome: Outcome | Returned, after_s: float | None = None) -> JsonObject:
    return outcome_json(TaskReport(task=5, outcome=outcome, after_s=after_s))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Completed(), {"kind": "completed"}),
        (Completed({"n": 1}), {"kind": "completed", "result": {"n": 1}}),
        (Completed(0), {"kind": "completed", "result": 0}),
        (Completed(False), {"kind": "completed", "result": False}),
        (Failed("no"), {"kind": "failed", "error": {"type": "Failed", "message": "no"}}),
        (Retry("later"), {"kind": "retry", "error": {"type": "Retry", "message": "later"}}),
        (Retry(after_s=3), {"kind": "retry", "after_s": 3.0}),
        (Retry(after_s=3, throttled=True), {"kind": "throttled", "after_s": 3.0}),
        (
            Retry(error=TaskError(type="E", message="m", digest="d")),
            {"kind": "retry", "error": {"type": "E", "message": "m", "digest": "d"}},
        ),
        (Cancelled(), {"kind": "cancelled"}),
        (Returned(), {"kind": "returned"}),
    ],
)
def test_outcomes(outcome: Outcome, expected: JsonObject) -> None:
    assert entry_of(outcome) == {"task": 5, **expected}


def test_effects_and_usage() -> None:
    entry = outcome_json(TaskReport(task=5, outcome=Completed(None, (EFFECT,)), duration_s=1.5, usage=(USAGE,)))
    usage = {"id": str(USAGE.id), "provider": "openai", "model": "m", "tokens": 12, "cost": 0.5, "saved_tokens": 0}
    assert entry == {
        "task": 5,
        "kind": "completed",
        "duration_s": 1.5,
        "usage": [usage],
        "effects": [
            {
                "document": str(EFFECT.document),
                "revision": 2,
                "generation": 3,
                "points": 4,
                "digest": "a" * 64,
                "chunks": 4,
                "usage": [usage],
            }
        ],
    }


def test_what_the_outcome_asks_for_comes_before_the_policy() -> None:
    assert entry_of(Retry(after_s=9), after_s=2)["after_s"] == 9
    assert entry_of(Retry(), after_s=2)["after_s"] == 2


@pytest.mark.parametrize(("asked", "sent"), [(math.nan, None), (math.inf, None), (-4, 0), (1e12, 31_536_000), ("soon", None)])
def test_waits_that_make_no_sense(asked: float, sent: float | None) -> None:
    assert entry_of(Retry(after_s=asked)).get("after_s") == sent


@dataclass
class Finding:
    at: datetime
    where: UUID


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        ("a\x00b", "a\ufffdb"),
        ("half \ud83d", "half \ufffd"),
        ("whole \ud83d\ude00", "whole 😀"),
        ({"k\x00": [math.nan, math.inf, {"v": "\udfff"}]}, {"k\ufffd": [None, None, {"v": "\ufffd"}]}),
        ("a literal \\u0000 stays", "a literal \\u0000 stays"),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
        (
            Finding(datetime(2026, 1, 2, tzinfo=UTC), UUID(int=3)),
            {"at": "2026-01-02T00:00:00Z", "where": "00000000-0000-0000-0000-000000000003"},
        ),
    ],
)
def test_results_are_cleaned(result: object, stored: object) -> None:
    assert entry_of(Completed(result)) == {"task": 5, "kind": "completed", "result": stored}  # type: ignore[arg-type]


def circular() -> list[object]:
    one: list[object] = []
    one.append(one)
    return one


def deep() -> list[object]:
    one: list[object] = []
    for _ in range(5_000):
        one = [one]
    return one


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


UNSTORABLE: dict[str, object] = {
    "an object": object(),
    "a function": circular,
    "a circle": circular(),
    "a deep list": deep(),
    "bytes": b"\xff",
    "a long text": "x" * 70_000,
    "a long number": 10**70_000,
    "a hostile object": Hostile(),
    "a hostile object inside": {"x": {Hostile()}},
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_what_cannot_be_stored_fails_its_own_task(what: str) -> None:
    entry = entry_of(Completed(UNSTORABLE[what], (EFFECT,)))  # type: ignore[arg-type]
    assert entry["kind"] == "failed"
    assert isinstance(entry["error"], dict)
    assert entry["error"]["type"] == "unreportable"
    assert isinstance(entry["effects"], list)  # what it cost still counts


def test_effects_that_cannot_be_stored_fail_their_task() -> None:
    hostile = DocumentEffect(document=UUID(int=1), revision=2, generation=3, points=4, digest=Hostile())  # type: ignore[arg-type]
    entry = entry_of(Completed(None, (hostile,)))
    assert entry["kind"] == "failed"
    assert "effects" not in entry


def test_the_largest_result() -> None:
    largest = "x" * (RESULT_BYTES - 2)
    assert entry_of(Completed(largest))["result"] == largest
    assert entry_of(Completed(largest + "x"))["kind"] == "failed"


def test_a_result_is_measured_as_the_database_prints_it() -> None:
    """`[1, 1, …]` has a third more bytes there than in compact JSON."""
    assert entry_of(Completed([1] * 30_000))["kind"] == "failed"


def test_long_errors_keep_what_helps() -> None:
    error = TaskError(
        type="ValueError", message="head " + "m" * 9_000, digest="d", traceback="first\n" + "t" * 90_000 + "\nlast", data={"a": "b" * 9_000}
    )
    entry = entry_of(Failed(error))["error"]
    assert isinstance(entry, dict)
    assert printed_size(entry) <= ERROR_BYTES
    assert (entry["type"], entry["digest"]) == ("ValueError", "d")
    assert str(entry["message"]).startswith("head m")
    assert str(entry["traceback"]).startswith("first")
    assert str(entry["traceback"]).endswith("last")
    assert entry["data"] == {"dropped": "the error was too large"}


texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)  # surrogates and NUL too
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=4) | st.datetimes() | st.uuids()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(), inner, max_size=4), max_leaves=20
)


@given(result=anything, message=texts, data=st.dictionaries(texts, anything, max_size=3), after_s=st.floats())
def test_every_outcome_can_be_sent(result: object, message: str, data: dict[str, object], after_s: float) -> None:
    error = TaskError(type=message, message=message * 500, traceback=message * 900, data=data)  # type: ignore[arg-type]
    for outcome in (Completed(result), Failed(error), Retry(message, after_s=after_s, error=error)):  # type: ignore[arg-type]
        text = json.dumps(entry_of(outcome), allow_nan=False, ensure_ascii=False).encode()
        assert b"\\u0000" not in text.replace(b"\\\\", b"")
        assert len(text) <= RESULT_BYTES + ERROR_BYTES


class Scalar:
    """What numpy's and torch's scalars have in common."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


def test_the_numbers_of_array_libraries_are_numbers() -> None:
    result = {"score": Scalar(0.5), "counts": [Scalar(3), Scalar(True)], "none": Scalar(math.nan)}
    assert entry_of(Completed(result))["result"] == {"score": 0.5, "counts": [3, True], "none": None}  # type: ignore[arg-type]
    counted = Usage(id=UUID(int=8), provider="openai", model="m", tokens=Scalar(12), cost=Scalar(0.25))  # type: ignore[arg-type]
    (usage,) = outcome_json(TaskReport(task=5, outcome=Completed(), usage=(counted,)))["usage"]  # type: ignore[misc, union-attr]
    assert (usage["tokens"], usage["cost"]) == (12, 0.25)  # type: ignore[index, call-overload]


def test_usage_that_cannot_be_said_is_told_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    silent = Usage(id=UUID(int=8), provider="openai", model="m", tokens=Hostile())  # type: ignore[arg-type]
    entry = outcome_json(TaskReport(task=5, outcome=Completed(1), usage=(silent, USAGE)))
    assert (entry["kind"], entry["result"]) == ("completed", 1)
    assert [one["id"] for one in entry["usage"]] == [str(USAGE.id)]  # type: ignore[index, call-overload, union-attr]
    assert "usage is not recorded task=5" in caplog.records[0].getMessage()


def test_a_fixed_report_says_what_was_true_when_it_was_made() -> None:
    shared = {"page": 1}
    first = fixed(TaskReport(task=5, outcome=Completed(shared)))
    shared["page"] = 2
    assert outcome_json(first)["result"] == {"page": 1}


def test_what_says_nothing_about_the_outcome_passes() -> None:
    class Struck(Exception): ...

    class Slow(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            raise Struck

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    report = TaskReport(task=5, outcome=Completed(Slow()))  # type: ignore[arg-type]
    assert outcome_json(report)["kind"] == "failed"
    with pytest.raises(Struck):
        outcome_json(report, passing=(Struck,))


def test_progress_that_json_cannot_say_is_refused_by_name() -> None:
    class Nobody:
        def call(self, function: str, arguments: object) -> object:
            raise AssertionError(function, arguments)

        def close(self) -> None: ...

    store = LedgerStore(Nobody())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the progress of task 7"):
        store.advance_run(UUID(int=1), delivery=UUID(int=2), step=0, reports=[], want=0, progress={7: Hostile()})  # type: ignore[dict-item]
