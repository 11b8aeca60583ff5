"""The configuration page says what the settings say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_configuration_page_is_rendered_from_the_settings() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "render-configuration", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
