"""The registry of handlers: which function works on which type of job, and what it needs.

    handlers = Handlers()

    @handlers.resource
    def http() -> Iterator[httpx.Client]:
        with httpx.Client() as client:
            yield client

    @handlers.handler("summarise", max_attempts=5, timeout="5m")
    def summarise(task: Task, context: TaskContext, http: httpx.Client) -> Outcome | None: ...

`LEDGERQ_APP=my_app.jobs:handlers` names the registry for workers and the command line. A handler gets its task first;
every other parameter is filled by name: `context`, or a resource. A resource is made once per process, after the fork,
when it is first needed, and closed at the end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar, cast, overload

from structlog.typing import FilteringBoundLogger

from ledgerq.durations import Duration, seconds
from ledgerq.errors import ConfigurationError, InvalidInput, UnknownType
from ledgerq.models import NAME_PATTERN, JobType, Json, Task
from ledgerq.outcomes import Outcome, Usage
from ledgerq.retry import RetryPolicy


class TaskCancelled(Exception):
    """Raised inside a handler when its job was cancelled. Let it pass; clean up in `finally`."""


class TaskContext(Protocol):
    """What a handler may say and ask while it works. Nothing here is bookkeeping of the job's state."""

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that already names run, job and task."""
        ...

    def progress(self, data: Json) -> None:
        """Report how far the current task is, in a few numbers or words (4,000 characters at most; more is dropped with a warning).

        The last one wins; the ledger hears of it at most once a second. Readers find it at the task, and at the job when
        it has one task.
        """
        ...

    def is_cancelled(self, task: Task | None = None) -> bool:
        """Whether the job of that task (default: the oldest one taken) was cancelled, as far as is known here."""
        ...

    def check_cancelled(self, task: Task | None = None) -> None:
        """Raise `TaskCancelled` when the job of that task was cancelled."""
        ...

    def usage(self, usage: Usage, task: Task | None = None) -> None:
        """Record a billed call for that task (default: the oldest one taken), whatever its outcome; counted once by its id."""
        ...


Function: TypeAlias = Callable[..., Any]
F = TypeVar("F", bound=Function)

EXTERNAL_TYPES: Final = frozenset({JobType.CRAWL.value})
"""Types whose work happens outside; they have no handler."""
LARGEST_WINDOW: Final = 500
"""Tasks that one worker may hold at once: the largest run, and the ledger's bound for one hand-out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One registered function, with the defaults for jobs of its type. None leaves it to the queue."""

    type: str
    function: Function
    window: bool
    """It takes an iterator of tasks and yields outcomes, instead of one task at a time."""
    wants: tuple[str, ...]
    """Names of the parameters after the first."""
    max_attempts: int | None = None
    timeout_s: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    window_size: int = 64
    """At most so many tasks are held at once."""


@dataclass(slots=True)
class Handlers:
    """Handlers and resources by name. Build one at import time; it holds no connection."""

    _handlers: dict[str, Handler] = field(default_factory=dict[str, Handler])
    _resources: dict[str, Function] = field(default_factory=dict[str, Function])
    _external: set[str] = field(default_factory=lambda: set(EXTERNAL_TYPES))

    def handler(
        self,
        type: str,  # noqa: A002 - the word of the domain
        *,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
    ) -> Callable[[F], F]:
        """Register a function of one task: `(task, …) -> Outcome | None`.

        Raises:
            InvalidInput: the name, the attempts or the timeout is out of range, or the type is taken.
        """
        return self._register(type, window=False, max_attempts=max_attempts, timeout=timeout, retry=retry, window_size=64)

    def window_handler(
        self,
        type: str,  # noqa: A002
        *,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        retry: RetryPolicy | None = None,
        window_size: int = 64,
    ) -> Callable[[F], F]:
        """Register a function of many tasks: `(tasks: Iterable[Task], …) -> Iterator[Outcome]`.

        It takes tasks when it wants them and answers each once, in order or named with `outcomes.of`.
        """
        return self._register(type, window=True, max_attempts=max_attempts, timeout=timeout, retry=retry, window_size=window_size)

    @overload
    def resource(self, function: F, /) -> F: ...
    @overload
    def resource(self, /, *, name: str) -> Callable[[F], F]: ...
    def resource(self, function: F | None = None, /, *, name: str | None = None) -> F | Callable[[F], F]:
        """Register something that handlers need: a function, or a generator that yields it once and closes it after."""

        def register(made_by: F) -> F:
            key = name or made_by.__name__
            if key in self._resources or key == "context":
                raise InvalidInput(f"resource {key!r} is registered already, or its name is reserved")
            self._resources[key] = made_by
            return made_by

        return register if function is None else register(function)

    def external(self, type: str) -> None:  # noqa: A002
        """Register a type whose work happens outside and is reported through the job manager."""
        self._external.add(_checked_type(type))

    def include(self, other: Handlers) -> None:
        """Take over all handlers, resources and external types of another registry. A name that both have is an error."""
        both = other._handlers.keys() & self._handlers.keys() | other._resources.keys() & self._resources.keys()
        both |= other._handlers.keys() & self._external | self._handlers.keys() & other._external
        for key in sorted(both):
            raise InvalidInput(f"{key!r} is registered in both registries")
        self._handlers.update(other._handlers)
        self._resources.update(other._resources)
        self._external |= other._external

    def get(self, type: str) -> Handler:  # noqa: A002
        """The handler of that type.

        Raises:
            UnknownType: there is none; the message lists the known ones.
        """
        handler = self._handlers.get(type)
        if handler is None:
            raise UnknownType(f"no handler for jobs of type {type!r}; known types: {', '.join(self.types) or 'none'}")
        return handler

    def find(self, type: str) -> Handler | None:  # noqa: A002
        """The handler of that type, or None."""
        return self._handlers.get(type)

    def is_external(self, type: str) -> bool:  # noqa: A002
        return type in self._external

    @property
    def types(self) -> tuple[str, ...]:
        """All known types, with a handler or external, in alphabetical order."""
        return tuple(sorted(self._handlers.keys() | self._external))

    def open_resources(self) -> ResourceScope:
        """A scope that makes resources when they are first needed; closing it closes them in reverse order."""
        return ResourceScope(dict(self._resources))

    def check(self) -> None:
        """Fail when a handler or a resource wants something that nobody provides.

        Raises:
            ConfigurationError: names the function, the parameter and what is known.
        """
        for handler in self._handlers.values():
            for name in handler.wants:
                if name != "context":
                    self._check_resource(name, wanted_by=f"handler {handler.type!r}", path=())

    def _check_resource(self, name: str, *, wanted_by: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ConfigurationError(f"resources need each other in a circle: {' -> '.join((*path, name))}")
        function = self._resources.get(name)
        if function is None:
            known = ", ".join(sorted(self._resources)) or "none"
            raise ConfigurationError(f"{wanted_by} wants {name!r}, which is no resource; known resources: {known}, and 'context'")
        for needed in inspect.signature(function).parameters:
            self._check_resource(needed, wanted_by=f"resource {name!r}", path=(*path, name))

    def _register(
        self,
        type: str,  # noqa: A002
        *,
        window: bool,
        max_attempts: int | None,
        timeout: Duration | None,
        retry: RetryPolicy | None,
        window_size: int,
    ) -> Callable[[F], F]:
        key = _checked_type(type)
        if key in self._handlers or key in self._external:
            raise InvalidInput(f"type {key!r} is registered already")
        if max_attempts is not None and not 1 <= max_attempts <= 100:
            raise InvalidInput(f"max_attempts of {key!r}: {max_attempts} is not between 1 and 100")
        if not 1 <= window_size <= LARGEST_WINDOW:
            raise InvalidInput(f"window_size of {key!r}: {window_size} is not between 1 and {LARGEST_WINDOW}")
        timeout_s = None if timeout is None else seconds(timeout, name=f"timeout of {key!r}")
        if timeout_s == 0:
            raise InvalidInput(f"timeout of {key!r} must be above zero")

        def register(function: F) -> F:
            self._handlers[key] = Handler(
                type=key,
                function=function,
                window=window,
                wants=_wanted(function),
                max_attempts=max_attempts,
                timeout_s=timeout_s,
                retry=retry or RetryPolicy(),
                window_size=window_size,
            )
            return function

        return register


class ResourceScope:
    """Resources of one process: made on first use, closed in reverse order. Not to be shared across a fork."""

    def __init__(self, makers: Mapping[str, Function]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was made. An error while closing one resource still closes the others, and is raised at the end."""
        self._made.clear()
        self._stack.close()

    def get(self, name: str) -> Any:
        """The resource of that name, made now if this is its first use."""
        if name not in self._made:
            function = self._makers[name]
            arguments = {needed: self.get(needed) for needed in inspect.signature(function).parameters}
            self._made[name] = self._open(function, arguments)
        return self._made[name]

    def _open(self, function: Function, arguments: dict[str, Any]) -> Any:
        if not inspect.isgeneratorfunction(function):
            return function(**arguments)
        opened = contextmanager(cast("Callable[..., Generator[Any]]", function))(**arguments)
        return self._stack.enter_context(cast("AbstractContextManager[Any]", opened))


def _wanted(function: Function) -> tuple[str, ...]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InvalidInput(f"handler {function.__qualname__} takes no parameter; the first one is the task")
    return tuple(parameter.name for parameter in parameters[1:] if parameter.default is parameter.empty)


def _checked_type(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(f"type {name!r} must match {NAME_PATTERN}")
    return name


WindowFunction: TypeAlias = Callable[..., Iterator[Outcome]]
TaskFunction: TypeAlias = Callable[..., Outcome | None]
Tasks: TypeAlias = Iterable[Task]
