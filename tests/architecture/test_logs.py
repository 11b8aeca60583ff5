"""Logs are quiet by default, structured when asked for, and leave the program's own logging alone."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ledgerq.logs import ROOT, configure_logging, get_logger


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger(ROOT)
    before = (list(root.handlers), root.level, root.propagate)
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def test_nothing_below_a_warning_is_heard_by_default() -> None:
    code = "from ledgerq.logs import get_logger; log = get_logger('ledgerq.x'); log.info('unheard'); log.warning('heard', job=7)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == ""
    assert said.stderr == "heard job=7\n"


def test_json_lines_carry_the_values() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    get_logger("ledgerq.x", run="r").info("run started", name="clashes with nothing", tasks=3)
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("event", "run", "name", "tasks", "level", "logger")} == {
        "event": "run started", "run": "r", "name": "clashes with nothing", "tasks": 3, "level": "info", "logger": "ledgerq.x",
    }  # fmt: skip


def test_console_lines_quote_what_has_spaces_and_show_tracebacks() -> None:
    stream = io.StringIO()
    configure_logging("debug", "console", stream)
    try:
        int("boom")
    except ValueError:
        get_logger("ledgerq.x").exception("went wrong", reason="two words")
    assert 'went wrong reason="two words"' in stream.getvalue()
    assert "ValueError: invalid literal" in stream.getvalue()


def test_configuring_twice_does_not_say_everything_twice() -> None:
    stream = io.StringIO()
    configure_logging("info", "console", stream)
    configure_logging("info", "console", stream)
    get_logger("ledgerq.x").info("once")
    assert stream.getvalue().count("once") == 1


def test_a_closed_stream_silences_our_logs_and_breaks_nothing() -> None:
    code = """if True:
        import logging, sys
        from ledgerq.logs import configure_logging, get_logger
        log = get_logger('ledgerq.x')
        sys.stderr.close()
        log.warning('by the last resort')
        logging.basicConfig(stream=sys.stderr)
        log.warning('by the program')
        configure_logging('info')
        log.info('by ours')
        print('still here')
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "still here\n"
