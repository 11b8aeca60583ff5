"""Finding the registry of handlers that `LEDGERQ_APP` names."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ledgerq.errors import ConfigurationError
from ledgerq.handlers import Handlers


def load_app(reference: str) -> Handlers:
    """Import `package.module:attribute` and return the registry found there. The working directory is looked in as well.

    Raises:
        ConfigurationError: the reference is malformed, the import raises, or the attribute is missing or no `Handlers`.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"LEDGERQ_APP={reference!r}: write it as package.module:handlers")
    module = _import(reference, module_name)
    found = getattr(module, attribute, None)
    if not isinstance(found, Handlers):
        there = f"no {attribute!r}" if found is None else f"an object of type {type(found).__name__} as {attribute!r}"
        raise ConfigurationError(f"LEDGERQ_APP={reference!r}: {module_name} has {there}, and not a ledgerq.Handlers")
    return found


def _import(reference: str, module_name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"LEDGERQ_APP={reference!r}: importing {module_name} raised {type(error).__name__}: {error}") from error
