"""The two faces of the manager say the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import ledgerq
from ledgerq.manager import AsyncJobManager, JobManager
from ledgerq.manager.async_manager import CALLS_AT_ONCE
from ledgerq.settings import Settings

ITERATING = {"list_jobs", "iter_tasks"}
OPENING = {"from_env", "from_settings"}
SAME_BUT_FOR_ITS_END = {"close", "wait_for"}
"""Their docs say more of what a coroutine may expect."""


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


METHODS = sorted(public(JobManager) - OPENING - {"from_parts"})


def annotated(method: Callable[..., Any]) -> tuple[list[inspect.Parameter], str]:
    signature = inspect.signature(method)
    return list(signature.parameters.values()), signature.return_annotation


def test_they_have_the_same_methods() -> None:
    assert public(JobManager) - public(AsyncJobManager) == {"from_parts"}
    assert public(AsyncJobManager) - public(JobManager) == {"from_blocking"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_called_the_same_way_and_awaited(name: str) -> None:
    blocking, awaitable = getattr(JobManager, name), getattr(AsyncJobManager, name)
    parameters, returns = annotated(blocking)
    if name in ITERATING:
        assert inspect.isasyncgenfunction(awaitable)
        assert annotated(awaitable) == (parameters, f"Async{returns}")
    else:
        assert inspect.iscoroutinefunction(awaitable)
        assert annotated(awaitable) == (parameters, returns)
    assert awaitable.__qualname__ == f"AsyncJobManager.{name}"


@pytest.mark.parametrize("name", sorted({*METHODS, *OPENING} - SAME_BUT_FOR_ITS_END))
def test_a_method_is_documented_the_same_way(name: str) -> None:
    said = inspect.getdoc(getattr(JobManager, name))
    assert said
    assert inspect.getdoc(getattr(AsyncJobManager, name)) == said


def test_they_are_built_the_same_way() -> None:
    assert annotated(JobManager) == annotated(AsyncJobManager)
    for name in OPENING:
        assert annotated(getattr(JobManager, name)) == annotated(getattr(AsyncJobManager, name))
    assert ledgerq.AsyncJobManager is AsyncJobManager


def test_as_many_calls_run_at_once_as_the_ledger_has_connections() -> None:
    assert Settings.model_fields["ledger_pool_size"].default == CALLS_AT_ONCE
