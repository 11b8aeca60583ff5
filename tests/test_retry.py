"""Which exceptions are worth another try, how long it waits, and what an exception may look like without doing harm."""

from __future__ import annotations

import email.message
import ssl
import urllib.error
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import openai
import psycopg
import pytest
import redis.exceptions
import requests
from qdrant_client.http.exceptions import UnexpectedResponse

from ledgerq.errors import DocumentError, LedgerUnavailable, NotFound, ServiceUnavailable
from ledgerq.retry import Judgement, RetryPolicy, classify, retry_after_s

ANSWERED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATES = {"Date": format_datetime(ANSWERED, usegmt=True), "Retry-After": format_datetime(ANSWERED + timedelta(seconds=90), usegmt=True)}
REQUEST = httpx.Request("GET", "https://service.test/")


def of_httpx(status: int, headers: dict[str, str]) -> Exception:
    try:
        httpx.Response(status, headers=headers, request=REQUEST).raise_for_status()
    except httpx.HTTPStatusError as error:
        return error
    raise AssertionError(status)


def of_requests(status: int, headers: dict[str, str]) -> Exception:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError(status)


def of_urllib(status: int, headers: dict[str, str]) -> Exception:
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError("https://service.test/", status, "", message, None)


def of_openai(status: int, headers: dict[str, str]) -> Exception:
    response = httpx.Response(status, headers=headers, request=REQUEST)
    kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError, 429: openai.RateLimitError}
    return kinds.get(status, openai.InternalServerError)("no", response=response, body={})


def of_qdrant(status: int, headers: dict[str, str]) -> Exception:
    return UnexpectedResponse(status, "no", b"", httpx.Headers(headers))


CLIENTS = [of_httpx, of_requests, of_urllib, of_openai, of_qdrant]


@pytest.mark.parametrize("made", CLIENTS)
@pytest.mark.parametrize(
    ("status", "headers", "judged", "wait_s"),
    [
        (400, {}, Judgement.PERMANENT, None),
        (401, {}, Judgement.PERMANENT, None),
        (404, {}, Judgement.PERMANENT, None),
        (404, {"Retry-After": "7"}, Judgement.PERMANENT, None),
        (429, {}, Judgement.TRANSIENT, None),
        (429, {"retry-after": "soon"}, Judgement.TRANSIENT, None),
        (429, {"retry-after": "-1"}, Judgement.TRANSIENT, None),
        (429, {"Retry-After": "7"}, Judgement.THROTTLED, 7.0),
        (429, {"Retry-After": "nan", "retry-after-ms": "1500"}, Judgement.THROTTLED, 1.5),
        (429, {"Retry-After": "1e300"}, Judgement.THROTTLED, 31_536_000.0),
        (503, {}, Judgement.TRANSIENT, None),
        (503, {"Retry-After": "0"}, Judgement.THROTTLED, 0.0),
        (503, DATES, Judgement.THROTTLED, 90.0),
    ],
)
def test_an_http_answer_is_judged_by_its_status_whoever_tells_it(
    made: object, status: int, headers: dict[str, str], judged: Judgement, wait_s: float | None
) -> None:
    error = made(status, headers)  # type: ignore[operator]
    assert (classify(error), retry_after_s(error)) == (judged, wait_s)


def test_a_date_of_a_server_that_does_not_tell_its_own_time_counts_from_now() -> None:
    error = of_httpx(503, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)})
    assert retry_after_s(error) == pytest.approx(3_600, abs=30)
    assert retry_after_s(of_httpx(503, {"Retry-After": DATES["Retry-After"], "Date": "long ago"})) == 0.0


class Coded(Exception):
    def __init__(self, code: object) -> None:
        self.code = code


class Away(ConnectionError): ...


class Garbled(ValueError): ...


@pytest.mark.parametrize(
    ("error", "judged"),
    [
        (ServiceUnavailable("busy", retry_after=3), Judgement.THROTTLED),
        (LedgerUnavailable("away"), Judgement.TRANSIENT),
        (DocumentError("empty"), Judgement.PERMANENT),
        (NotFound("job"), Judgement.PERMANENT),
        (ConnectionResetError(), Judgement.TRANSIENT),
        (TimeoutError(), Judgement.TRANSIENT),
        (OSError(28, "no space"), Judgement.TRANSIENT),
        (MemoryError(), Judgement.TRANSIENT),
        (EOFError(), Judgement.TRANSIENT),
        (FileNotFoundError(), Judgement.PERMANENT),
        (PermissionError(), Judgement.PERMANENT),
        (ssl.SSLCertVerificationError(), Judgement.PERMANENT),
        (ssl.SSLError(), Judgement.TRANSIENT),
        (ValueError(), Judgement.PERMANENT),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "no"), Judgement.PERMANENT),
        (KeyError(), Judgement.PERMANENT),
        (ZeroDivisionError(), Judgement.PERMANENT),
        (RecursionError(), Judgement.PERMANENT),
        (ModuleNotFoundError(), Judgement.PERMANENT),
        (RuntimeError(), Judgement.TRANSIENT),
        (Away(), Judgement.TRANSIENT),
        (Garbled(), Judgement.PERMANENT),
        (httpx.ConnectTimeout("slow"), Judgement.TRANSIENT),
        (httpx.UnsupportedProtocol("ftp"), Judgement.PERMANENT),
        (httpx.InvalidURL("no"), Judgement.PERMANENT),
        (requests.ConnectionError(), Judgement.TRANSIENT),
        (requests.Timeout(), Judgement.TRANSIENT),
        (urllib.error.URLError("no route"), Judgement.TRANSIENT),
        (openai.APIConnectionError(request=REQUEST), Judgement.TRANSIENT),
        (openai.APITimeoutError(REQUEST), Judgement.TRANSIENT),
        (redis.exceptions.ConnectionError(), Judgement.TRANSIENT),
        (redis.exceptions.BusyLoadingError(), Judgement.TRANSIENT),
        (redis.exceptions.TimeoutError(), Judgement.TRANSIENT),
        (psycopg.OperationalError(), Judgement.TRANSIENT),
        (psycopg.errors.DeadlockDetected(), Judgement.TRANSIENT),
        (Coded("insufficient_quota"), Judgement.PERMANENT),
        (Coded(404), Judgement.PERMANENT),
        (Coded(503), Judgement.TRANSIENT),
        (Coded(17), Judgement.TRANSIENT),
        (Coded([]), Judgement.TRANSIENT),
        (Coded({}), Judgement.TRANSIENT),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}" if isinstance(value, Exception) else str(value),
)
def test_an_exception_is_judged_by_its_class(error: Exception, judged: Judgement) -> None:
    assert classify(error) is judged


def test_a_quota_that_is_used_up_is_permanent_although_it_is_a_429() -> None:
    response = httpx.Response(429, headers={"Retry-After": "7"}, request=REQUEST)
    error = openai.RateLimitError("no money", response=response, body={"code": "insufficient_quota"})
    assert classify(error) is Judgement.PERMANENT


class Hostile(ConnectionError):
    """An exception whose properties raise."""

    def _raise(self) -> object:
        raise RuntimeError

    code = response = headers = status = status_code = retry_after = retry_after_s = property(_raise)


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1, True, "7", [], None])
def test_waits_that_make_no_sense_are_none(wait: object) -> None:
    error = ConnectionError()
    error.retry_after = wait  # type: ignore[attr-defined]
    assert (classify(error), retry_after_s(error)) == (Judgement.TRANSIENT, None)


def test_attributes_that_raise_are_none() -> None:
    assert (classify(Hostile()), retry_after_s(Hostile())) == (Judgement.TRANSIENT, None)


def test_the_longest_wait_is_a_year() -> None:
    assert retry_after_s(ServiceUnavailable("later", retry_after=10**400)) == 31_536_000.0


@pytest.mark.parametrize(
    ("attempts", "draw", "seconds"), [(0, 0.0, 1.0), (0, 1.0, 2.0), (1, 1.0, 4.0), (3, 0.5, 12.0), (9, 1.0, 600.0), (10_000, 0.0, 300.0)]
)
def test_the_backoff_doubles_up_to_its_longest_and_is_drawn_from_its_upper_half(attempts: int, draw: float, seconds: float) -> None:
    assert RetryPolicy(draw=lambda: draw).delay_s(attempts) == seconds


def test_jitter_stays_in_its_bounds() -> None:
    waits = {RetryPolicy().delay_s(2) for _ in range(200)}
    assert all(4.0 <= wait <= 8.0 for wait in waits)
    assert len(waits) > 100
