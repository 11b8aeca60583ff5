"""`scripts/setup` in a small checkout with a Python that only pretends to install: what it does, when, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
# A Python whose pip writes down what it was asked for; {quirk}
case "$*" in
    *"-m pip --version"*) {has_pip} ;;
    *"pip"*install*) echo "$*" >>"{log}"; sleep 0.2; {installs} ;;
    *) exec "{real}" "$@" ;;
esac
"""


class Checkout:
    """A copy of what `scripts/setup` looks at, and the `python3.11` that it finds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory.parent / "pip.log"
        self.bin = directory.parent / "bin"
        (directory / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts" / "setup", directory / "scripts" / "setup")
        (directory / "pyproject.toml").write_text("[project]\n")
        self.pretend(installs="exit 0")

    def pretend(self, *, installs: str) -> None:
        """Make the Python that is found, and one that its virtual environments get."""
        real = sys.executable
        inner = PYTHON.format(quirk="inside", has_pip="exit 0", installs=installs, log=self.log, real=real)
        (self.bin / "inner").write_text(inner)
        make = f'mkdir -p .venv/bin && cp "{self.bin}/inner" .venv/bin/python && echo "$PWD/.venv" >.venv/bin/activate'
        outer = inner.replace('case "$*" in', f'case "$*" in\n    "-m venv .venv") {make}; exit 0 ;;')
        (self.bin / "python3.11").write_text(outer)
        for name in ("inner", "python3.11"):
            (self.bin / name).chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": "/nonexistent", **environment}
        script = str(self.directory / "scripts" / "setup")
        return subprocess.run(["bash", script], capture_output=True, text=True, check=False, env=known, cwd="/", timeout=60)

    @property
    def installs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a place with spaces" / "ledgerq")


def test_it_installs_once_with_everything_that_demo_and_tests_need(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    assert checkout.setup().returncode == 0
    (asked,) = checkout.installs
    assert asked.endswith("--editable .[local,openai,dashboard,dev]")


def test_other_dependencies_are_installed_into_the_same_environment(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.directory / ".venv" / "mine").write_text("kept")
    (checkout.directory / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    assert checkout.setup().returncode == 0
    assert len(checkout.installs) == 2
    assert (checkout.directory / ".venv" / "mine").exists()


def test_a_checkout_that_was_moved_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.directory / ".venv" / "old").write_text("")
    moved = checkout.directory.rename(checkout.directory.with_name("moved"))
    checkout.directory = moved
    assert checkout.setup().returncode == 0
    assert len(checkout.installs) == 2
    assert not (moved / ".venv" / "old").exists()


def test_the_same_checkout_by_another_name_keeps_its_environment(checkout: Checkout) -> None:
    checkout.setup()
    (checkout.directory / ".venv" / "mine").write_text("kept")
    link = checkout.directory.with_name("link")
    link.symlink_to(checkout.directory)
    checkout.directory = link
    assert checkout.setup().returncode == 0
    assert len(checkout.installs) == 1
    assert (link / ".venv" / "mine").exists()


def test_several_at_once_install_once(checkout: Checkout) -> None:
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: checkout.setup().returncode, range(4)))
    assert codes == [0, 0, 0, 0]
    assert len(checkout.installs) == 1


def test_what_failed_is_done_again(checkout: Checkout) -> None:
    checkout.pretend(installs="exit 1")
    assert checkout.setup().returncode == 1
    checkout.pretend(installs="exit 0")
    shutil.copy(checkout.bin / "inner", checkout.directory / ".venv" / "bin" / "python")
    assert checkout.setup().returncode == 0
    assert len(checkout.installs) == 2


def test_without_a_python_it_says_what_to_do(checkout: Checkout) -> None:
    for name in ("python3.11", "python3.12", "python3.13", "python3.14", "python3"):
        (checkout.bin / name).unlink(missing_ok=True)
        (checkout.bin / name).write_text("#!/bin/sh\nexit 1\n")
        (checkout.bin / name).chmod(0o755)
    ended = checkout.setup()
    assert ended.returncode == 1
    assert "no Python 3.11 or newer found" in ended.stderr
    assert not (checkout.directory / ".venv").exists()


def test_a_python_may_be_named(checkout: Checkout) -> None:
    named = (checkout.bin / "python3.11").rename(checkout.bin / "snake")
    assert checkout.setup(LEDGERQ_PYTHON=str(named)).returncode == 0
    assert len(checkout.installs) == 1


@pytest.mark.parametrize("script", ["setup", "demo", "test", "lint"])
def test_the_scripts_are_ready_to_run(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text()


def test_the_field_guide_is_what_its_script_renders(tmp_path: Path) -> None:
    """The PDF among the examples was made by the script beside it, and is made the same again."""
    for name in ("render-field-guide", "field-guide.txt"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    (tmp_path / "examples" / "documents").mkdir(parents=True)
    subprocess.run([sys.executable, str(tmp_path / "scripts" / "render-field-guide")], check=True, stdout=subprocess.DEVNULL)
    made = tmp_path / "examples" / "documents" / "field-guide.pdf"
    assert made.read_bytes() == (ROOT / "examples" / "documents" / "field-guide.pdf").read_bytes()
