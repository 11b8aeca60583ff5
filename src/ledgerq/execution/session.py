"""One delivery's conversation with the ledger: start, then step after step, through every loss of the connection."""

from __future__ import annotations

import resource
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable, SchemaMismatch
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

CANNOT_BE_SAID: Final = (ValueError, TypeError, RecursionError)
"""What putting a question into JSON raises; `InvalidInput`, with which the ledger refuses a value, is a `ValueError`."""

log = get_logger("ledgerq.runner")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    reports: Sequence[TaskReport]
    want: int = 0
    give_back: bool = False
    progress: Mapping[int, Json] = field(default_factory=lambda: NOTHING)


class RunSession:
    """Knows the step and the lease. Every call may be repeated, so a lost reply is answered by asking again: a question that was
    broken off, by whatever, is asked once more before the next one."""

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
        self._questions: deque[_Question] = deque()
        self._started = False

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
            self._started = True
        return answer

    def advance(
        self, reports: Sequence[TaskReport], *, want: int, give_back: bool = False, progress: Mapping[int, Json] = NOTHING
    ) -> RunAdvanced:
        """Acknowledge, and ask for more. An outcome that cannot be stored fails its own task and no other; such progress is dropped.

        Raises:
            LedgerUnavailable: the ledger stayed away for as long as RQ lets a run last.
        """
        self._questions.append(_Question(reports=reports, want=want, give_back=give_back, progress=progress))
        return _joined(self._answers(self._settle))

    def try_advance(self, reports: Sequence[TaskReport], *, progress: Mapping[int, Json] = NOTHING) -> RunAdvanced | None:
        """Acknowledge without patience. None: there is no answer yet, and the next call tells it again."""
        if reports or progress:
            self._questions.append(_Question(reports=reports, progress=progress))
        try:
            answers = self._answers(self._put_once)
        except (LedgerqError, *CANNOT_BE_SAID) as error:
            if not isinstance(error, CANNOT_BE_SAID) and not self._may_pass(error):
                raise
            log.info("not acknowledged yet", run=self._delivery.run, outcomes=len(reports), cause=str(error))
            return None
        return _joined(answers) if answers else None

    @property
    def is_open(self) -> bool:
        """Whether something was told and not answered."""
        return bool(self._questions)

    def is_lease_over(self) -> bool:
        """Whether a lease has passed, by this machine's clock, since anybody renewed it: then nothing new may be begun."""
        renewed = max(self._renewed_at, self._slate.renewed_ns / 1e9)
        return self._now() - renewed >= self._lease_s

    def _answers(self, ask: Callable[[_Question], RunAdvanced]) -> list[RunAdvanced]:
        """To all that was not answered yet, in its order: the ledger may have heard the first one, and knows it by its step."""
        answers: list[RunAdvanced] = []
        while self._questions:
            answers.append(ask(self._questions[0]))
            self._questions.popleft()
            if answers[-1].disposition is not Disposition.APPLIED or answers[-1].finished:
                self._questions.clear()
        return answers

    def _settle(self, question: _Question) -> RunAdvanced:
        """Ask until there is an answer; when the whole cannot be said or stored, each outcome by itself."""
        try:
            return self._put(question)
        except CANNOT_BE_SAID as error:
            if not question.reports and not question.progress:
                raise
            log.warning("acknowledging one by one", run=self._delivery.run, outcomes=len(question.reports), cause=str(error))
        if not question.reports:
            return self._put(_Question(reports=[], want=question.want, give_back=question.give_back))
        return self._one_by_one(question)

    def _one_by_one(self, question: _Question) -> RunAdvanced:
        answers: list[RunAdvanced] = []
        for report in question.reports:
            last = report is question.reports[-1]
            answers.append(self._alone(report, want=question.want if last else 0, give_back=question.give_back and last))
            if answers[-1].disposition is not Disposition.APPLIED:
                break
        return _joined(answers)

    def _alone(self, report: TaskReport, *, want: int, give_back: bool) -> RunAdvanced:
        try:
            return self._put(_Question(reports=[report], want=want, give_back=give_back))
        except CANNOT_BE_SAID as error:
            message = f"the outcome cannot be stored: {error}"
            unreportable = Failed(TaskError(type="unreportable", message=message))
            instead = TaskReport(task=report.task, outcome=unreportable, duration_s=report.duration_s)
            return self._put(_Question(reports=[instead], want=want, give_back=give_back))

    def _put_once(self, question: _Question) -> RunAdvanced:
        return self._put(question, patient=False)

    def _put(self, question: _Question, *, patient: bool = True) -> RunAdvanced:
        of, asked = self._delivery, question
        self._note_peak()
        answer = self._ask(
            lambda: self._ledger.advance_run(
                of.run,
                delivery=of.id,
                step=self._step,
                reports=asked.reports,
                want=asked.want,
                give_back=asked.give_back,
                progress=asked.progress,
            ),
            patient=patient,
        )
        self._step = answer.step
        return answer

    def _note_peak(self) -> None:
        """For the case that the horse dies before its keeper looked at it."""
        self._slate.note_peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)

    def _ask(self, call: Callable[[], Answer], *, patient: bool = True) -> Answer:
        """Ask until there is an answer. The lease counts from before the question that was answered."""
        asked_at = self._now()

        def again() -> Answer:
            nonlocal asked_at
            asked_at = self._now()
            return call()

        try:
            answer = call()
        except LedgerqError as error:
            if not patient or not self._may_pass(error):
                raise
            self._tell(error)
            answer = self._patiently(again)
        if answer.disposition is Disposition.APPLIED:
            self._renewed_at = asked_at
            self._slate.heard(int(asked_at * 1e9))
        return answer

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, min=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            stop=self._gives_up,
            sleep=self._wait,
            reraise=True,
        )
        return retrying(call)

    def _gives_up(self, _state: RetryCallState) -> bool:
        return self._now() >= self._until or self._slate.is_superseded

    def _may_pass(self, error: BaseException) -> bool:
        """Whether to ask again. Whoever has begun was let in: a password or a key that is changed now, or a gateway in front of the
        ledger, must not make the tasks in hand look lost.
        """
        if isinstance(error, SchemaMismatch) or not self._started:
            return isinstance(error, LedgerUnavailable)
        return isinstance(error, LedgerUnavailable | ConfigurationError)

    def _tell(self, error: LedgerqError) -> None:
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
