"""What a command works with: settings, and the parts that it asks for, opened late and closed at the end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerq.cli import environment
from ledgerq.cli.log_output import show_logs
from ledgerq.cli.output import Output

if TYPE_CHECKING:
    from ledgerq.ledger import LedgerStore
    from ledgerq.manager import JobManager
    from ledgerq.settings import Settings


@dataclass
class Session:
    """One command's view of the services."""

    data_dir: Path
    output: Output
    closing: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def settings(self) -> Settings:
        from ledgerq.settings import Settings

        return Settings()

    @cached_property
    def store(self) -> LedgerStore:
        from ledgerq.ledger import open_store

        return self.closing.enter_context(open_store(self.settings))

    @cached_property
    def jobs(self) -> JobManager:
        from ledgerq.manager import JobManager

        return self.closing.enter_context(JobManager.from_settings(self.settings))

    @cached_property
    def jobs_with_app(self) -> JobManager:
        """A manager that knows which types there are, when `LEDGERQ_APP` says so."""
        from ledgerq import assembly

        return self.closing.enter_context(assembly.job_manager(self.settings))


@contextmanager
def open_session(data_dir: Path | None, *, as_json: bool, debug: bool) -> Generator[Session]:
    """Find the services (variables first, then the stack of the data directory), and show logs on stderr."""
    directory = environment.data_directory(data_dir)
    environment.enter(directory)
    with ExitStack() as closing:
        session = Session(directory, Output(as_json=as_json), closing)
        show_logs(session.settings, debug=debug)
        yield session
