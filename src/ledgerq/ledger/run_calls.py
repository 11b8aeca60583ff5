"""Calls about runs: dispatching, working, judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final
from uuid import UUID

from ledgerq.errors import InvalidInput
from ledgerq.ledger.answers import Shed
from ledgerq.ledger.calls import Calls, texts
from ledgerq.ledger.outcome_json import TaskReport, outcome_json, storable
from ledgerq.models import Dispatched, Heartbeat, Json, JsonObject, LiveRuns, RunAdvanced, RunsReconciled, RunStarted, RunVerdict

NOTHING: Final[Mapping[int, Json]] = MappingProxyType({})


class RunCalls(Calls):
    """One method per function. All of them may be repeated."""

    def dispatch(self, queue: str) -> Dispatched:
        """Pack ready tasks of a queue into runs, as far as its depth allows. `busy`: somebody else counts; call again."""
        return self._ask(Dispatched, "dispatch", queue=queue)

    def dispatch_due(self, *, limit: int | None = None) -> Dispatched:
        """The same for all queues with something due; the steward's tick."""
        return self._ask(Dispatched, "dispatch_due", limit=limit)

    def start_run(
        self,
        run: UUID,
        *,
        delivery: UUID,
        window: int,
        worker: str | None = None,
        execution_id: str | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> RunStarted:
        """Begin a run under this delivery and take its first window. Only `applied` means that it is ours."""
        return self._ask(
            RunStarted,
            "start_run",
            run=run,
            delivery=delivery,
            window=window,
            worker=worker,
            execution_id=execution_id,
            host=host,
            pid=pid,
        )

    def advance_run(
        self,
        run: UUID,
        *,
        delivery: UUID,
        step: int,
        reports: Sequence[TaskReport],
        want: int,
        give_back: bool = False,
        progress: Mapping[int, Json] = NOTHING,
    ) -> RunAdvanced:
        """Acknowledge any part of the window and take `want` tasks beyond those still held.

        `progress` is what handlers say of held tasks, at most 16 KiB each, and replaces what they said before.

        `step` is the one of the answer before; `give_back` hands out nothing more, and what was not handed out goes back.

        Raises:
            InvalidInput: one of the outcomes cannot be stored (it is not said which): report one by one. Or the progress of a
                task, which is named, cannot be said in JSON.
            WrongState: a step from the future.
        """
        return self._send(
            RunAdvanced,
            "advance_run",
            {
                "run": str(run),
                "delivery": str(delivery),
                "step": step,
                "outcomes": [outcome_json(report) for report in reports],
                "progress": [_progress(task, data) for task, data in progress.items()],
                "want": want,
                "yield": give_back,
            },
        )

    def heartbeat_run(self, run: UUID, *, delivery: UUID) -> Heartbeat:
        """Renew the lease. Anything but `applied` means that the run is somebody else's now: stop."""
        return self._ask(Heartbeat, "heartbeat_run", run=run, delivery=delivery)

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled:
        """Apply at most 100 verdicts, each under the fence that it was reached under; then dispatch what they set free."""
        given = [verdict.model_dump(mode="json", exclude_none=True) for verdict in verdicts]
        return self._ask(RunsReconciled, "reconcile_runs", verdicts=given, actor=actor, dispatch=dispatch)

    def shed(self, run: UUID, *, dispatch: bool = False) -> Shed:
        """Take back what a running run was not handed yet; with `dispatch` it goes out again at once."""
        return self._ask(Shed, "shed", run=run, dispatch=dispatch)

    def live_runs(
        self, *, after: UUID | None = None, limit: int = 500, queue: str | None = None, runs: Sequence[UUID] | None = None
    ) -> LiveRuns:
        """A page of dispatched and running runs in the order of their ids; or those of `runs` (at most 100) that are live."""
        return self._ask(LiveRuns, "live_runs", after=after, limit=limit, queue=queue, runs=None if runs is None else texts(runs))


def _progress(task: int, data: Json) -> JsonObject:
    try:
        return {"task": task, "data": storable(data)}
    except ValueError as error:
        raise InvalidInput(f"advance_run: the progress of task {task}: {error}") from error
