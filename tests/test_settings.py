"""Settings come from the variables that are documented, and from no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ledgerq.errors import ConfigurationError
from ledgerq.manager import JobManager
from ledgerq.settings import Settings


def test_bare_names_of_the_environment_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_LEVEL", "APP", "QUEUE", "COLLECTION", "DATA_DIR", "EMBEDDER", "RESULT_TTL_S"):
        monkeypatch.setenv(name, "INFO")
    settings = Settings()
    assert (settings.log_level, settings.app, settings.queue, settings.collection) == ("warning", None, "processing", "ledgerq")
    assert (settings.data_dir, settings.embedder, settings.result_ttl_s) == (Path(".ledgerq"), None, 86_400)


def test_the_first_of_several_names_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_QUEUE_NAME", "mails")
    assert Settings().queue == "mails"
    monkeypatch.setenv("LEDGERQ_QUEUE", "letters")
    assert Settings().queue == "letters"


def test_a_port_that_a_linked_service_left_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "tcp://10.0.0.1:6390")
    assert Settings().redis_dsn == "redis://localhost:6390/0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEDGERQ_TASK_TIMEOUT", "100d"),
        ("LEDGERQ_CHUNK_OVERLAP", "600"),
        ("LEDGERQ_QUEUE", "My Queue"),
        ("LEDGERQ_BACKOFF_FACTOR", "inf"),
        ("REDIS_PORT", "abc"),
    ],
)
def test_what_cannot_be_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name):
        Settings()
    with pytest.raises(ConfigurationError, match=name):
        JobManager.from_env()
