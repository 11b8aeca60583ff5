"""No refusal of our SQL is unknown to Python, and none carries a secret."""

from __future__ import annotations

import re

import pytest

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable
from ledgerq.ledger import errors_table
from ledgerq.ledger.errors_table import RAISED_BY_THE_LEDGER, ServerFault, error_for, is_repeatable, refusal_of
from ledgerq.ledger.migration_files import shipped_migrations


def test_every_code_that_our_sql_raises_is_mapped() -> None:
    raised = {code for migration in shipped_migrations() for code in re.findall(r"LQ\d{3}", migration.script)}
    assert raised
    assert raised <= RAISED_BY_THE_LEDGER.keys()


def test_every_mapped_code_is_described() -> None:
    described = errors_table.__doc__ or ""
    assert all(code in described for code in RAISED_BY_THE_LEDGER)


@pytest.mark.parametrize("sqlstate", ["", "00000", "01000", "HV000", "P0002", "42703", "99999", "LQ999"])
def test_the_unknown_is_an_unavailable_ledger(sqlstate: str) -> None:
    error = error_for("create_jobs", ServerFault(sqlstate, "what"))
    assert type(error) is LedgerUnavailable
    assert "create_jobs: what" in str(error)


def test_our_own_codes_are_never_repeated() -> None:
    assert not any(is_repeatable(code) for code in RAISED_BY_THE_LEDGER)


def test_every_loss_of_the_connection_is_repeated() -> None:
    assert all(is_repeatable(code) for code in ("08000", "08003", "08006", "08001", "08004", "57P01", "57P02", "57P03"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('FATAL:  password authentication failed for user "x"', ConfigurationError),
        ("fe_sendauth: no password supplied", ConfigurationError),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', ConfigurationError),
        ('FATAL:  database "x" does not exist', ConfigurationError),
        ('FATAL:  role "x" does not exist', ConfigurationError),
        ("FATAL:  Tenant or user not found", ConfigurationError),
        ("FATAL:  (ENOTFOUND) tenant/user postgres.x not found", ConfigurationError),
        ("FATAL:  (ENOIDENTIFIER) no tenant identifier provided", ConfigurationError),
        ("FATAL:  (ESSLREQUIRED) SSL connection is required for user: x", ConfigurationError),
        ("FATAL:  (EMAXCLIENTCONN) max client connections reached, limit: 200", LedgerUnavailable),
        ("FATAL:  (ECIRCUITBREAKER) too many failed attempts", LedgerUnavailable),
        ("Connection refused. Is the server running?", LedgerUnavailable),
        ("FATAL:  the database system is starting up", LedgerUnavailable),
        ("timeout expired", LedgerUnavailable),
    ],
)
def test_refused_connections(text: str, expected: type[LedgerqError]) -> None:
    assert type(error_for("the ledger", ServerFault(refusal_of(text), text))) is expected
