"""A Valkey server of our own in one directory: what RQ needs of Redis."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries
from ledgerq.local.accounts import Account, Sight, give, in_sight, make_home, server_account
from ledgerq.local.child import Child, Command
from ledgerq.local.files import kept_secrets, write_private
from ledgerq.local.identity import require_unused
from ledgerq.local.ports import LOOPBACK, free_port
from ledgerq.local.probes import valkey_answers

if TYPE_CHECKING:
    from ledgerq.local.identity import ProcessIdentity, Steps

STARTUP_SECONDS = 60.0
"""Reading the append-only file comes before the first answer."""
STOP: Steps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
CONFIG = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir .
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
enable-debug-command no
enable-module-command no
enable-protected-configs no
daemonize no
databases {databases}
loglevel notice
"""
CONFIG_NAME = "valkey.conf"
DATABASES = 16


class ValkeyServer:
    """Valkey on a loopback port, started with `start()` or as a context manager.

    Everything is kept on disk (at most a second is lost when the machine dies, nothing when the server does), nothing
    is evicted, and the password is never on a command line. `port=None` takes a free one at each start.
    Every failure to start is a `LocalStackError` that says what to do. Start it from a thread that outlives it.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None, log: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "valkey.log"
        self._wanted_port = port
        self._port = port
        self._child: Child | None = None
        self._password = ""

    def start(self) -> None:
        """Return when it answers with everything of the last run loaded."""
        if self.is_alive():
            return
        account = server_account()
        home = make_home(self.data_dir, "data", account)
        require_unused(home, "Valkey")
        self._password = kept_secrets(self.data_dir / "passwords.json", "default")["default"]
        programs = binaries.within_reach(binaries.embedded_valkey(), account)
        self._port = self._wanted_port or free_port()
        self._write_config(account)
        try:
            with in_sight(self.data_dir, account) as sight:
                self._child = child = Child(self._command(programs / "valkey-server", sight, home, account))
                child.start()
            child.wait_ready(lambda: valkey_answers(self.url), STARTUP_SECONDS)
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
            raise LocalStackError(f"the Valkey of {self.data_dir} has not been started")
        return self._port

    @property
    def url(self) -> str:
        """Database 0; there are 16."""
        return self.database_url(0)

    def database_url(self, database: int) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_config(self, account: Account | None) -> None:
        text = CONFIG.format(host=LOOPBACK, port=self.port, password=self._password, databases=DATABASES)
        write_private(self.data_dir / CONFIG_NAME, text)
        give(self.data_dir / CONFIG_NAME, account)

    def _command(self, program: Path, sight: Sight, home: Path, account: Account | None) -> Command:
        return Command(
            name="Valkey",
            argv=(str(program), str(sight.path / CONFIG_NAME)),
            cwd=home,
            log=self.log,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            account=account,
            stop=STOP,
            descriptors=sight.descriptors,
        )
