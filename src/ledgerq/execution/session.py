"""One delivery's conversation with the ledger: start, then step after step, through every loss of the connection."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from ledgerq.errors import InvalidInput, LedgerUnavailable
from ledgerq.execution.parts import Delivery, RunLedger
from ledgerq.execution.slate import Slate, Terms
from ledgerq.ledger.outcome_json import TaskReport
from ledgerq.ledger.run_calls import NOTHING
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, Json, RunAdvanced, RunStarted
from ledgerq.outcomes import Failed, TaskError

PATIENCE_S: Final = 600.0
"""How long a ledger that is away is waited for when RQ sets no timeout: the default run budget."""
MARGIN_S: Final = 30.0
"""Before RQ's timeout, so that giving up is ours to tell."""
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024

Answer = TypeVar("Answer", RunStarted, RunAdvanced)

log = get_logger("ledgerq.runner")


class RunSession:
    """Knows the step and the lease. Every call may be repeated, so a lost reply is answered by asking again."""

    def __init__(
        self, ledger: RunLedger, delivery: Delivery, slate: Slate, *, now: Callable[[], float], wait: Callable[[float], None]
    ) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._slate = slate
        self._now = now
        self._wait = wait
        self._until = now() + max(MARGIN_S, (delivery.budget_s or PATIENCE_S + MARGIN_S) - MARGIN_S)
        self._step = 0
        self._lease_s = 0.0
        self._renewed_at = now()

    def start(self, window: int) -> RunStarted:
        """Ask for the run and its first window.

        Raises:
            LedgerUnavailable: the ledger stayed away for as long as RQ lets a run last.
        """
        of = self._delivery
        self._note_peak()
        answer = self._ask(
            lambda: self._ledger.start_run(
                of.run, delivery=of.id, window=window, worker=of.worker, execution_id=of.execution_id, host=of.host, pid=of.pid
            )
        )
        self._step, self._lease_s = answer.step, answer.lease_s
        if answer.disposition is Disposition.APPLIED:
            terms = Terms(lease_s=answer.lease_s, heartbeat_s=answer.heartbeat_s, cancel_grace_s=answer.cancel_grace_s)
            self._slate.begin_run(terms, at_ns=int(self._renewed_at * 1e9))
        return answer

    def advance(
        self, reports: Sequence[TaskReport], *, want: int, give_back: bool = False, progress: Mapping[int, Json] = NOTHING
    ) -> RunAdvanced:
        """Acknowledge, and ask for more. An outcome that cannot be stored fails its own task and no other; such progress is dropped.

        Raises:
            LedgerUnavailable: the ledger stayed away for as long as RQ lets a run last.
        """
        try:
            return self._advance(reports, want=want, give_back=give_back, progress=progress)
        except InvalidInput as error:
            if not reports and not progress:
                raise
            log.warning("acknowledging one by one", run=self._delivery.run, outcomes=len(reports), cause=str(error))
        if not reports:
            return self._advance([], want=want, give_back=give_back)
        return self._one_by_one(reports, want=want, give_back=give_back)

    def is_lease_over(self) -> bool:
        """Whether a lease has passed, by this machine's clock, since anybody renewed it: then nothing new may be begun."""
        renewed = max(self._renewed_at, self._slate.renewed_ns / 1e9)
        return self._now() - renewed >= self._lease_s

    def _one_by_one(self, reports: Sequence[TaskReport], *, want: int, give_back: bool) -> RunAdvanced:
        answers: list[RunAdvanced] = []
        for report in reports:
            last = report is reports[-1]
            answers.append(self._alone(report, want=want if last else 0, give_back=give_back and last))
            if answers[-1].disposition is not Disposition.APPLIED:
                break
        return _joined(answers)

    def _alone(self, report: TaskReport, *, want: int, give_back: bool) -> RunAdvanced:
        try:
            return self._advance([report], want=want, give_back=give_back)
        except InvalidInput as error:
            message = f"the outcome cannot be stored: {error}"
            unreportable = Failed(TaskError(type="unreportable", message=message))
            instead = TaskReport(task=report.task, outcome=unreportable, duration_s=report.duration_s)
            return self._advance([instead], want=want, give_back=give_back)

    def _advance(self, reports: Sequence[TaskReport], *, want: int, give_back: bool, progress: Mapping[int, Json] = NOTHING) -> RunAdvanced:
        of = self._delivery
        self._note_peak()
        answer = self._ask(
            lambda: self._ledger.advance_run(
                of.run, delivery=of.id, step=self._step, reports=reports, want=want, give_back=give_back, progress=progress
            )
        )
        self._step = answer.step
        return answer

    def _note_peak(self) -> None:
        """For the case that the horse dies before its keeper looked at it."""
        self._slate.note_peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer. The lease counts from before the question that was answered."""
        asked_at = self._now()

        def again() -> Answer:
            nonlocal asked_at
            asked_at = self._now()
            return call()

        try:
            answer = call()
        except LedgerUnavailable as error:
            self._tell(error)
            answer = self._patiently(again)
        if answer.disposition is Disposition.APPLIED:
            self._renewed_at = asked_at
            self._slate.heard(int(asked_at * 1e9))
        return answer

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(LedgerUnavailable),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, min=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            stop=self._gives_up,
            sleep=self._wait,
            reraise=True,
        )
        return retrying(call)

    def _gives_up(self, _state: RetryCallState) -> bool:
        return self._now() >= self._until or self._slate.is_superseded

    def _tell(self, error: LedgerUnavailable) -> None:
        log.warning("waiting for the ledger", run=self._delivery.run, cause=str(error))


def _joined(answers: Sequence[RunAdvanced]) -> RunAdvanced:
    """The last answer, with what the ones before it told once."""
    return answers[-1].model_copy(
        update={
            "ignored": tuple(task for answer in answers for task in answer.ignored),
            "stale": tuple(task for answer in answers for task in answer.stale),
            "remove": tuple(item for answer in answers for item in answer.remove),
            "runs": tuple(run for answer in answers for run in answer.runs),
        }
    )
