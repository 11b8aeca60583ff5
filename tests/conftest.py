"""Real servers for every test that asks: started once per session, in a directory of their own, as any user."""

import signal
from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.support.servers", "tests.support.lab"]

# A shell starts what runs in its background with Ctrl-C ignored, and programs inherit that; tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a test of a command configured would write to a stream that is closed by the next one."""
    yield
    structlog.reset_defaults()
