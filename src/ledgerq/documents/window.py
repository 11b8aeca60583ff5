"""Many documents at once: the next is read and chunked while others are embedded and stored.

One thread (the handler's) decides, and is the only one that touches what is written here; the others each carry out one
step. At most `documents` are open, and no further one is loaded while those that are hold `tokens` of text, so that memory
does not depend on how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from ledgerq.documents import reports
from ledgerq.documents.embed.pack import Item, Packer
from ledgerq.documents.intake import begin
from ledgerq.documents.opened import OpenDocument
from ledgerq.documents.ports import DocumentLedger
from ledgerq.documents.stages import Plan, Prepared, Stages
from ledgerq.errors import InvalidInput, ServiceUnavailable
from ledgerq.handlers import TaskContext
from ledgerq.models import Task
from ledgerq.outcomes import Outcome

_LOOK_S: Final = 0.5
"""How often cancellations are looked for while nothing else happens."""
_TAKEN_AT_ONCE: Final = 4
"""Tasks begun by one call, once none waits to be loaded: a task's clock runs from when it is taken, and documents are loaded one
by one."""
_LOADED_AHEAD: Final = 2
"""Documents handed to the loading thread: one that it works on and one that it finds when it has finished."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    documents: int = 16
    """At work at once, most of them being embedded and stored. Each one's clock runs, so more is not better."""
    tokens: int = 1_000_000
    """Of chunks held in memory: about 5 MB of text. A single larger document is worked on alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The threads. The loading thread is one, and lives as long as the parser process that it starts."""

    loading: Executor
    storing: Executor


@dataclass(frozen=True, slots=True)
class _Made:
    """A request that was embedded, and stored unless there is an error. What it cost is spent in any case."""

    tokens: int
    cost: float
    error: Exception | None = None


_Items: TypeAlias = list[Item[OpenDocument]]


@dataclass(slots=True)
class Window:
    """One call of the handler."""

    tasks: Iterator[Task]
    context: TaskContext
    ledger: DocumentLedger
    stages: Stages
    workers: Workers
    settings: WindowSettings
    _packer: Packer[OpenDocument] = field(init=False)
    _open: list[OpenDocument] = field(default_factory=list[OpenDocument])
    _to_load: deque[OpenDocument] = field(default_factory=deque[OpenDocument])
    _running: dict[Future[object], Callable[[], None]] = field(default_factory=dict[Future[object], Callable[[], None]])
    _loading: int = 0
    _planning: int = 0
    _embedding: int = 0
    _single: deque[_Items] = field(default_factory=deque[_Items])
    """Parts of refused requests, each of one document, that are to be sent by themselves."""
    _away: ServiceUnavailable | None = None
    """What the embedder or the vector store said when it was away: from then on no further document is loaded."""
    _outcomes: deque[Outcome] = field(default_factory=deque[Outcome])

    def __post_init__(self) -> None:
        self._packer = Packer(self.stages.embedder)

    def outcomes(self) -> Iterator[Outcome]:
        """One outcome for each task, as they become ready."""
        try:
            while True:
                while self._outcomes:
                    yield self._outcomes.popleft()
                took = self._take()
                self._start_steps()
                if self._running:
                    self._await_a_step()
                elif not took and not self._outcomes:
                    return
        finally:
            for future in self._running:
                future.cancel()

    # --- taking

    def _take(self) -> bool:
        """Take as many tasks as will be loaded soon, if half of the room is free."""
        room = self.settings.documents - len(self._open)
        if self._to_load or room * 2 < self.settings.documents:
            return False
        taken = list(islice(self.tasks, min(room, _TAKEN_AT_ONCE)))
        if taken and self._away is not None:
            self._outcomes += (reports.postponed(task.id, self._away) for task in taken)
        elif taken:
            begun = begin(taken, ledger=self.ledger, stages=self.stages)
            self._outcomes += begun.outcomes
            self._open += begun.documents
            self._to_load += begun.documents
            self._note(begun.error)
        return bool(taken)

    def _note(self, error: BaseException | None) -> None:
        """What is loaded while nothing can be embedded or stored was loaded in vain."""
        if not isinstance(error, ServiceUnavailable):
            return
        self._away = self._away or error
        for document in list(self._to_load):
            document.error = error
            self._forget(document)
            self._close_if_over(document)

    # --- steps

    def _start_steps(self) -> None:
        self._look_for_cancellations()
        while self._to_load and self._loading < _LOADED_AHEAD and self._has_room():
            self._load(self._to_load.popleft())
        while self._embedding < self.stages.embedder.concurrency:
            if self._single:
                self._embed(self._single.popleft())
            elif len(self._packer) and self._is_worth_sending():
                self._embed(self._packer.take())
            else:
                break

    def _has_room(self) -> bool:
        held = sum(document.prepared.tokens for document in self._open if document.prepared is not None)
        return held < self.settings.tokens

    def _is_worth_sending(self) -> bool:
        """A full request always; less than that if nobody is at it, or nothing more can come soon."""
        return self._packer.is_full or not self._embedding or not (self._loading or self._planning)

    def _look_for_cancellations(self) -> None:
        for document in list(self._open):
            if not document.cancelled and self.context.is_cancelled(document.task):
                document.cancelled = True
                self._forget(document)
                self._close_if_over(document)

    def _load(self, document: OpenDocument) -> None:
        self._loading += 1
        self._run(self.workers.loading, partial(self.stages.prepare, document.work), [document], partial(self._loaded, document))

    def _loaded(self, document: OpenDocument, future: Future[Prepared]) -> None:
        self._loading -= 1
        prepared = self._result(document, future)
        if prepared is not None and not document.is_given_up:
            document.prepared = prepared
            self._planning += 1
            step = partial(self.stages.plan, prepared, document.existing)
            self._run(self.workers.storing, step, [document], partial(self._planned, document))

    def _planned(self, document: OpenDocument, future: Future[Plan]) -> None:
        self._planning -= 1
        document.plan = self._result(document, future)
        self._note(future.exception())
        if document.plan is None or document.prepared is None or document.is_given_up:
            return
        chunks = document.prepared.chunks
        document.unstored = len(document.plan.missing)
        self._packer.add(Item(document, number, chunks[number].text, chunks[number].tokens) for number in document.plan.missing)

    def _embed(self, items: _Items) -> None:
        self._embedding += 1
        owners = list(dict.fromkeys(item.owner for item in items))
        self._run(self.workers.storing, partial(_embed_and_store, self.stages, items), owners, partial(self._embedded, items, owners))

    def _embedded(self, items: _Items, owners: list[OpenDocument], future: Future[_Made]) -> None:
        self._embedding -= 1
        made = future.result()
        self._share(items, made)
        if isinstance(made.error, InvalidInput) and len(owners) > 1:
            for owner in owners:  # one of them is not acceptable: each by itself, so that only that one pays
                if not owner.is_given_up:
                    self._single.append([item for item in items if item.owner is owner])
        elif made.error is not None:
            for owner in owners:
                owner.error = owner.error or made.error
                self._forget(owner)
            self._note(made.error)

    def _share(self, items: _Items, made: _Made) -> None:
        """Note what a request has done and cost, by each document's part of its tokens."""
        total = sum(item.tokens for item in items) or 1
        for item in items:
            item.owner.tokens += round(made.tokens * item.tokens / total)
            item.owner.cost += made.cost * item.tokens / total
            item.owner.unstored -= 1 if made.error is None else 0

    def _forget(self, document: OpenDocument) -> None:
        """Nothing more is begun for it."""
        self._packer.drop(document)
        self._single = deque(items for items in self._single if items[0].owner is not document)
        if document in self._to_load:
            self._to_load.remove(document)

    def _result(self, document: OpenDocument, future: Future[_T]) -> _T | None:
        error = future.exception()
        if error is None:
            return future.result()
        document.error = document.error or error
        return None

    # --- running

    def _run(
        self, executor: Executor, step: Callable[[], _T], documents: Sequence[OpenDocument], then: Callable[[Future[_T]], None]
    ) -> None:
        for document in documents:
            document.steps += 1
        future = executor.submit(step)
        self._running[future] = partial(self._step_done, documents, partial(then, future))  # pyright: ignore[reportArgumentType] - a key of any result

    def _step_done(self, documents: Sequence[OpenDocument], then: Callable[[], None]) -> None:
        for document in documents:
            document.steps -= 1
        then()
        for document in documents:
            self._close_if_over(document)

    def _await_a_step(self) -> None:
        done, _ = wait(self._running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
        for future in done:
            self._running.pop(future)()

    # --- closing

    def _close_if_over(self, document: OpenDocument) -> None:
        if document.is_over and document in self._open:
            self._open.remove(document)
            self._outcomes.append(document.outcome(self.context, self.stages.embedder))


def _embed_and_store(stages: Stages, items: _Items) -> _Made:
    tokens, cost = 0, 0.0
    try:
        embedded = stages.embedder.embed([item.text for item in items])
        tokens, cost = embedded.tokens, embedded.cost
        vectors = zip(items, embedded.vectors, strict=True)
        stages.store([(item.owner.prepared, item.position, vector) for item, vector in vectors if item.owner.prepared is not None])
    except Exception as error:  # noqa: BLE001 - handed on together with what was spent before it
        return _Made(tokens, cost, error)
    return _Made(tokens, cost)


def outcomes_of(
    tasks: Iterable[Task], context: TaskContext, *, ledger: DocumentLedger, stages: Stages, workers: Workers, settings: WindowSettings
) -> Iterator[Outcome]:
    """Work on all tasks that the iterable gives, also those it gives only after some were answered."""
    return Window(iter(tasks), context, ledger, stages, workers, settings).outcomes()
