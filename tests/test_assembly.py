"""What settings and a `ProcessingConfig` become in the parts that are wired from them."""

from __future__ import annotations

import pytest

from ledgerq import assembly
from ledgerq.settings import ProcessingConfig, Settings

NOWHERE = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}


def settings(**values: object) -> Settings:
    return Settings.model_validate(NOWHERE | values)


@pytest.mark.parametrize(
    ("given", "config", "factor"),
    [
        ({}, None, 2.0),
        ({"backoff_factor": 3}, None, 3.0),
        ({"backoff_factor": 3}, ProcessingConfig(backoff_factor=1.5), 1.5),
    ],
)
def test_the_waits_between_attempts_grow_as_they_are_told_to(
    given: dict[str, object], config: ProcessingConfig | None, factor: float
) -> None:
    handler = assembly.worker_parts(settings(**given), config).handlers.get("process")
    assert handler.retry.factor == factor
    assert handler.retry.delay_s(2) <= 2.0 * factor**2


def test_a_config_sets_the_attempts_of_documents() -> None:
    parts = assembly.worker_parts(settings(), ProcessingConfig(max_retries=4))
    assert parts.handlers.get("process").max_attempts == 5
    assert assembly.worker_parts(settings()).handlers.get("process").max_attempts is None


@pytest.mark.parametrize(
    ("given", "config", "pause_s"), [({"steward_interval_s": 7}, None, 7.0), ({}, ProcessingConfig(poll_interval=40), 40.0)]
)
def test_the_status_sync_pauses_as_long_as_it_is_told_to(given: dict[str, object], config: ProcessingConfig | None, pause_s: float) -> None:
    with assembly.steward(settings(**given), config) as steward:
        assert steward._interval_s == pause_s


def test_the_environment_names_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGERQ_BACKOFF_FACTOR", "2.5")
    assert Settings().backoff_factor == 2.5
