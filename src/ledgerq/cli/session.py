"""What a command works with: settings, and the parts that it asks for, opened late and closed at the end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ledgerq.cli import environment
from ledgerq.cli.files import shown
from ledgerq.cli.log_output import show_logs
from ledgerq.cli.output import Output
from ledgerq.errors import ConfigurationError, UnknownQueue

_REFUSED: Final = re.compile(r"\b(?:Authentication\w*|NoPermission)Error\b")
"""redis-py's errors that a wrong or missing password, or a user without rights, is told by."""

if TYPE_CHECKING:
    from ledgerq.ledger import LedgerStore
    from ledgerq.manager import JobManager
    from ledgerq.settings import Settings


@dataclass
class Session:
    """One command's view of the services."""

    data_dir: Path
    output: Output
    named_by_option: bool = False
    debug: bool = False
    closing: ExitStack = field(default_factory=ExitStack)

    @property
    def where(self) -> str:
        """The words that name this data directory to another command; none where it would be found without them."""
        return f" --data-dir {shlex.quote(shown(self.data_dir))}" if self.named_by_option else ""

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


def check_queue(session: Session, queue: str | None) -> None:
    """Nothing to say of a queue that exists, or of none.

    Raises:
        UnknownQueue: the ledger has no such queue; names those that it has.
    """
    if queue is None:
        return
    known = [one.queue for one in session.store.queue_stats()]
    if queue not in known:
        raise UnknownQueue(f"there is no queue {queue!r}; there {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}")


def check_pushed(degraded: str | None, jobs: Sequence[UUID]) -> None:
    """Nothing to say of what was pushed, nor of a Redis that is away and will be back.

    Raises:
        ConfigurationError: Redis is there and refuses us, which time does not mend. The jobs are in the ledger all the same.
    """
    if degraded is not None and _REFUSED.search(degraded):
        ids = " ".join(map(str, jobs))
        raise ConfigurationError(
            f"{degraded}: check the password in REDIS_URL (or REDIS_PASSWORD). In the ledger all the same, and pushed once "
            f"that is mended: {ids}"
        )


@contextmanager
def open_session(data_dir: Path | None, *, as_json: bool, debug: bool) -> Generator[Session]:
    """Find the services (variables first, then the stack of the data directory), and show logs on stderr."""
    directory = environment.data_directory(data_dir)
    environment.enter(directory)
    with ExitStack() as closing:
        session = Session(directory, Output(as_json=as_json), named_by_option=data_dir is not None, debug=debug, closing=closing)
        show_logs(session.settings, debug=debug)
        yield session
