"""Starting and stopping the vector server."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ledgerq.errors import LocalStackError
from ledgerq.local.accounts import Account, make_home, server_account
from ledgerq.local.binaries import INSTALL_HINT
from ledgerq.local.child import Child, Command
from ledgerq.local.files import kept_secrets
from ledgerq.local.identity import require_unused
from ledgerq.local.ports import LOOPBACK, free_port
from ledgerq.local.probes import vectors_answer

if TYPE_CHECKING:
    from ledgerq.local.identity import ProcessIdentity, Steps

KEY_NAME = "api_key"
STARTUP_SECONDS = 120.0
"""Opening the collections, with what their logs hold, comes before the first answer."""
STOP: Steps = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0))
PACKAGES = ("qdrant_edge", "uvicorn", "starlette", "orjson")


class VectorServer:
    """The part of Qdrant that ledgerq needs, on a loopback port, started with `start()` or as a context manager.

    Serves `QdrantClient(url=server.url, api_key=server.api_key)`; what is outside of the subset is a 400 that says so.
    An acknowledged write survives kill -9. `port=None` takes a free one at each start. Every failure to start is a
    `LocalStackError` that says what to do. Start it from a thread that outlives it.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None, log: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "vectors.log"
        self._wanted_port = port
        self._port = port
        self._child: Child | None = None
        self._api_key = ""

    def start(self) -> None:
        """Return when it answers with every collection open."""
        if self.is_alive():
            return
        _require_packages()
        account = server_account()
        home = make_home(self.data_dir, "data", account)
        require_unused(home, "vector server")
        key_file = self.data_dir / "passwords.json"
        self._api_key = kept_secrets(key_file, KEY_NAME)[KEY_NAME]
        self._port = self._wanted_port or free_port()
        self._child = child = Child(self._command(home, key_file, account))
        try:
            child.start()
            child.wait_ready(lambda: vectors_answer(self.url), STARTUP_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Clean shutdown; harmless when it is not running."""
        if self._child is not None:
            self._child.stop()

    def is_alive(self) -> bool:
        return self._child is not None and self._child.is_alive()

    @property
    def identity(self) -> ProcessIdentity | None:
        return None if self._child is None else self._child.identity

    @property
    def port(self) -> int:
        if self._port is None:
            raise LocalStackError(f"the vector server of {self.data_dir} has not been started")
        return self._port

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def api_key(self) -> str:
        return self._api_key

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, home: Path, key_file: Path, account: Account | None) -> Command:
        # -P: nothing that lies in the data directory is ever imported. No account for the launcher: the process itself
        # drops root's power, once it has read its packages.
        power = () if account is None else ("--uid", str(account.uid), "--gid", str(account.gid))
        module = (sys.executable, "-P", "-m", "ledgerq.local.vectors", "--port", str(self.port), "--key-file", str(key_file))
        return Command(name="the vector server", argv=(*module, *power), cwd=home, log=self.log, stop=STOP)


def _require_packages() -> None:
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise LocalStackError(f"the vector server needs the package {missing[0]}: {INSTALL_HINT}")
