"""Finding the registry that LEDGERQ_APP names, or one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledgerq.apps import load_app
from ledgerq.errors import ConfigurationError, InvalidInput
from ledgerq.handlers import Handlers


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_registry_is_found(write: Path) -> None:
    (write / "app_good.py").write_text("from ledgerq import Handlers\njobs = Handlers()\njobs.external('review')\n")
    assert isinstance(load_app("app_good:jobs"), Handlers)


@pytest.mark.parametrize(
    ("module", "source", "reference", "said"),
    [
        ("app_raises", "1 / 0", "app_raises:handlers", "importing app_raises raised ZeroDivisionError"),
        ("app_syntax", "def", "app_syntax:handlers", "raised SyntaxError"),
        ("app_exits", "raise SystemExit(1)", "app_exits:handlers", "raised SystemExit"),
        ("app_empty", "", "app_empty:handlers", "has no 'handlers'"),
        ("app_other", "handlers = 7", "app_other:handlers", "has an object of type int as 'handlers'"),
        ("app_named", "", "app_named", "write it as package.module:handlers"),
        ("app_none", "", "no_such_module:handlers", "raised ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said(write: Path, module: str, source: str, reference: str, said: str) -> None:
    (write / f"{module}.py").write_text(source)
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_app(reference)
    assert repr(reference) in str(raised.value)


@pytest.mark.parametrize("external_here", [True, False])
def test_a_type_that_one_registry_calls_external_has_no_handler_in_the_other(*, external_here: bool) -> None:
    working, outside = Handlers(), Handlers()
    working.handler("review")(lambda task: None)
    outside.external("review")
    one, other = (outside, working) if external_here else (working, outside)
    with pytest.raises(InvalidInput, match="'review' is registered in both"):
        one.include(other)
    assert one.is_external("review") is external_here


def test_registries_that_share_an_external_type_go_together() -> None:
    one, other = Handlers(), Handlers()
    for registry in (one, other):
        registry.external("review")
    one.include(other)
    assert one.is_external("review")
