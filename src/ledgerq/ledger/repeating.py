"""How often, and how long, a call is made again. The same for every transport."""

from __future__ import annotations

import random
from typing import Final

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

from ledgerq.ledger.errors_table import ServerFault
from ledgerq.logs import get_logger

log = get_logger("ledgerq.ledger")

MOST_TRIES: Final = 7
"""With the waits below about 2 s of trying when every try is refused at once."""
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0


def repeating(*, timeout_s: float) -> Retrying:
    """Makes a call again while its `ServerFault` may pass, and none later than `timeout_s` after the first; the last fault is raised.

    Called as `repeating(…)(function, name of the call, …)`.
    """
    return Retrying(
        retry=retry_if_exception(_worth_repeating),
        stop=stop_after_attempt(MOST_TRIES) | stop_before_delay(timeout_s),
        wait=_wait,
        before_sleep=_log_repeat,
        reraise=True,
    )


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, ServerFault) and error.is_repeatable


def _log_repeat(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.info("call_repeated", attempt=state.attempt_number, function=str(state.args[0]), error=str(error))


def _wait(state: RetryCallState) -> float:
    """From half to all of a doubling wait: clients that collided do not meet again. Longer where that is asked of us."""
    fault = state.outcome.exception() if state.outcome is not None else None
    asked = fault.retry_after if isinstance(fault, ServerFault) else None
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (state.attempt_number - 1))
    return max(asked or 0.0, longest * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
