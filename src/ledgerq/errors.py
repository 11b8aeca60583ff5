"""Every exception that ledgerq raises on purpose.

LedgerqError
├── InvalidInput              the caller's data is wrong; the message names the field and the value
│   ├── UnknownType           no handler, and no external type, has that name
│   ├── UnknownQueue
│   └── TooLarge              a payload, a batch or a document is over its documented cap
├── NotFound                  a job, document, source or queue that was named does not exist
├── WrongState                the thing exists, but its status does not allow the request
├── ConfigurationError        settings that are missing or contradict each other
│   └── SchemaMismatch        the database has no ledger, or one of another version
├── ServiceUnavailable        something outside answered nothing useful; worth trying again
│   ├── LedgerUnavailable     Postgres, PostgREST or the way to it
│   ├── QueueUnavailable      Redis
│   ├── VectorsUnavailable    Qdrant
│   └── EmbedderUnavailable   the embedding provider
├── DocumentError             a document that can never be processed as it is; names it
└── LocalStackError           the embedded stack cannot start, or is not running
"""

from __future__ import annotations


class LedgerqError(Exception):
    """Base of all errors that ledgerq raises on purpose."""


class InvalidInput(LedgerqError, ValueError):
    """The caller's data is wrong; the message names the field and the value."""


class UnknownType(InvalidInput):
    """No handler and no external type is registered under that name."""


class UnknownQueue(InvalidInput):
    """The ledger has no queue of that name."""


class TooLarge(InvalidInput):
    """A payload, a batch or a document is over its documented cap."""


class NotFound(LedgerqError, LookupError):
    """The job, document, source or queue that was named does not exist."""


class WrongState(LedgerqError):
    """The thing exists, but its status does not allow the request."""


class ConfigurationError(LedgerqError):
    """Settings are missing or contradict each other; the message names the setting."""


class SchemaMismatch(ConfigurationError):
    """The database has no ledger, or one of another version; `ledgerq migrate` mends it."""


class ServiceUnavailable(LedgerqError):
    """Something outside answered nothing useful. The same request may be repeated."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the service asked for, when it said so."""


class LedgerUnavailable(ServiceUnavailable):
    """Postgres, PostgREST, or the way to it. The cause is chained."""


class QueueUnavailable(ServiceUnavailable):
    """Redis did not take or answer a command. The cause is chained."""


class VectorsUnavailable(ServiceUnavailable):
    """Qdrant did not take or answer a request. The cause is chained."""


class EmbedderUnavailable(ServiceUnavailable):
    """The embedding provider is down, slow or limiting. The cause is chained."""


class DocumentError(LedgerqError):
    """A document that can never be processed as it is. The message names it and says why."""


class LocalStackError(LedgerqError):
    """The embedded stack cannot start, or is not running."""
