"""The process of the vector server. It drops root's power only after its imports: the account that it takes need not be
able to read the packages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from ledgerq.local.accounts import THROUGH_DESCRIPTORS
from ledgerq.local.files import kept_secrets
from ledgerq.local.launch import drop_power, end_with_parent
from ledgerq.local.logs import log_lines
from ledgerq.local.ports import LOOPBACK
from ledgerq.local.vectors.app import make_app
from ledgerq.local.vectors.catalogue import Catalogue
from ledgerq.local.vectors.endpoints import prepare
from ledgerq.local.vectors.server import KEY_NAME


def main() -> None:
    arguments = _arguments()
    api_key = kept_secrets(arguments.key_file, KEY_NAME)[KEY_NAME]
    parent = os.getppid()
    _rehearse()
    if arguments.uid is not None:
        drop_power(arguments.uid, arguments.gid)
        end_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGTERM, _leave)
    log_lines(sys.stderr)
    catalogue = Catalogue(_here())
    try:
        uvicorn.Server(_config(make_app(catalogue, api_key), arguments.port)).run()
    finally:
        catalogue.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ledgerq.local.vectors", description="Serves the working directory.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--uid", type=int, help="the account to become, when started by root")
    parser.add_argument("--gid", type=int)
    return parser.parse_args()


def _rehearse() -> None:
    """Import everything now that is only imported when it is used: it may be out of reach afterwards."""
    prepare()
    server = uvicorn.Server(_config(Starlette(), port=0))
    server.should_exit = True
    server.run()


def _config(app: Starlette, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=LOOPBACK,
        port=port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )


def _here() -> Path:
    """The working directory, by a path that works though the account may not enter what lies above: the engine makes a
    relative one absolute, which would not."""
    return Path("/proc/self/cwd") if THROUGH_DESCRIPTORS else Path()


def _leave(_number: int, _frame: object) -> None:
    """uvicorn raises the signal again once it has shut down; the collections are still to be closed then."""
    sys.exit(0)


if __name__ == "__main__":
    main()
