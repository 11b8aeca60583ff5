"""`.ci/run`: honest about the end of the tests, and about what was skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = """\
tests/x.py ..s [100%]
=========================== short test summary info ============================
SKIPPED [1] tests/x.py:3: needs the corpus (LEDGERQ_CORPUS)
{closing}
Name    Stmts   Miss  Cover   Missing
TOTAL    1000     40    96%
corpus={corpus}
"""


def run(directory: Path, *, closing: str, code: int) -> subprocess.CompletedProcess[str]:
    (directory / "checkout" / "scripts").mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", directory / "checkout" / ".ci")
    test = directory / "checkout" / "scripts" / "test"
    text = OUTPUT.format(closing=closing, corpus='${LEDGERQ_CORPUS:-"none"}')
    test.write_text(f"#!/bin/bash\ncat <<EOF\n{text}EOF\nexit {code}\n")
    test.chmod(0o755)
    known = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "CI": "true"}
    script = str(directory / "checkout" / ".ci" / "run")
    return subprocess.run(["bash", script], capture_output=True, text=True, check=False, env=known, cwd="/", stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("closing", "code"), [("===== 3 passed, 1 skipped in 0.12s =====", 0), ("===== 1 failed, 2 passed in 0.12s =====", 1)]
)
def test_it_ends_as_the_tests_did_and_repeats_what_matters(tmp_path: Path, closing: str, code: int) -> None:
    ended = run(tmp_path, closing=closing, code=code)
    assert ended.returncode == code
    assert ended.stdout.splitlines()[-3:] == [
        "SKIPPED [1] tests/x.py:3: needs the corpus (LEDGERQ_CORPUS)",
        "TOTAL    1000     40    96%",
        closing,
    ]


def test_a_suite_that_never_ran_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, closing="ImportError", code=2).returncode == 2


def test_the_corpus_beside_the_checkout_is_used(tmp_path: Path) -> None:
    (tmp_path / "shared" / "corpus").mkdir(parents=True)
    ended = run(tmp_path, closing="", code=0)
    assert f"corpus={tmp_path}/shared/corpus" in ended.stdout
