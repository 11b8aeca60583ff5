"""What a project's API, its gateway, and whatever else answers at its address mean to a caller, over the real supabase-py."""

from __future__ import annotations

import json
import logging
import ssl
import time
import traceback
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ledgerq.errors import ConfigurationError, InvalidInput, LedgerqError, LedgerUnavailable, SchemaMismatch, TooLarge, WrongState
from ledgerq.ledger import open_store, open_transport
from ledgerq.ledger.supabase import SupabaseTransport
from ledgerq.local.ports import free_port
from ledgerq.settings import Settings
from tests.support.canned import Answer, CannedServer, serve_canned

SECRET_KEY = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"
SIGNED_WITH = "a secret of the project that is long enough"


def legacy_key(role: str) -> str:
    return jwt.encode({"role": role, "iss": "supabase"}, SIGNED_WITH, algorithm="HS256")


@pytest.fixture(scope="module")
def servers() -> Iterator[CannedServer]:
    with serve_canned() as server:
        yield server


@pytest.fixture
def server(servers: CannedServer) -> CannedServer:
    servers.next.clear()
    servers.requests.clear()
    servers.always = Answer(200, b"{}")
    return servers


@pytest.fixture
def transport(server: CannedServer) -> Iterator[SupabaseTransport]:
    """One that repeats for half a second at least."""
    made = SupabaseTransport(server.url, SECRET_KEY, timeout_s=0.5)
    yield made
    made.close()


def error(code: str | None, message: str, **others: object) -> bytes:
    return json.dumps({**({} if code is None else {"code": code}), "message": message, "details": None, "hint": None, **others}).encode()


HTML = b"<html><head><title>502 Bad Gateway</title></head></html>"

REPEATED = [
    ("no connection to the database", Answer(503, error("PGRST000", "Could not connect with the database"))),
    ("its connection broke", Answer(503, error("PGRST001", "Database client error. Retrying the connection."))),
    ("no schema cache yet", Answer(503, error("PGRST002", "Could not query the database for the schema cache. Retrying."))),
    ("no connection in time", Answer(504, error("PGRST003", "Timed out acquiring connection from connection pool."))),
    ("a schema cache older than the migration", Answer(404, error("PGRST202", "Could not find the function ledgerq.f(request)"))),
    ("a deadlock", Answer(500, error("40P01", "deadlock detected"))),
    ("the statement timeout", Answer(500, error("57014", "canceling statement due to statement timeout"))),
    ("a gateway without an upstream", Answer(502, HTML, "text/html")),
    ("the gateway's own words", Answer(503, b'{"message": "name resolution failed"}')),
    ("an origin that is down", Answer(521, b"error code: 521", "text/plain")),
    ("too many requests", Answer(429, b'{"message": "API rate limit exceeded"}')),
    ("a code that is a number", Answer(500, b'{"code": 500, "message": "unexpected"}')),
]


@pytest.mark.parametrize(("what", "answer"), REPEATED, ids=[what for what, _ in REPEATED])
def test_what_may_pass_is_asked_again(transport: SupabaseTransport, server: CannedServer, what: str, answer: Answer) -> None:
    server.next.extend([answer, answer])
    server.always = Answer(200, b'{"done": true}')
    assert transport.call("f", {}) == {"done": True}
    assert len(server.requests) == 3, what


REFUSED: list[tuple[str, Answer, type[LedgerqError], str]] = [
    ("schema not exposed", Answer(406, error("PGRST106", "Invalid schema: ledgerq")), ConfigurationError, "Exposed schemas"),
    (
        "the same in older words",
        Answer(406, error("PGRST106", "The schema must be one of the following: public")),
        ConfigurationError,
        "Exposed schemas",
    ),
    ("two functions of that name", Answer(300, error("PGRST203", "Could not choose the best candidate")), SchemaMismatch, "migrate"),
    ("a token of another project", Answer(401, error("PGRST301", "JWSError JWSInvalidSignature")), ConfigurationError, "SERVICE_ROLE_KEY"),
    ("an expired token", Answer(401, error("PGRST303", "JWT expired")), ConfigurationError, "SERVICE_ROLE_KEY"),
    ("no anonymous access", Answer(401, error("PGRST302", "Anonymous access is disabled")), ConfigurationError, "SERVICE_ROLE_KEY"),
    ("an unknown key", Answer(401, b'{"message":"Invalid API key","hint":"Double check"}'), ConfigurationError, "Invalid API key"),
    ("a role that may not", Answer(403, error("42501", "permission denied for schema ledgerq")), ConfigurationError, "service_role"),
    ("a body that is too large", Answer(413, HTML, "text/html"), TooLarge, "gateway"),
    ("a paused project", Answer(540, b'{"message": "project paused"}'), LedgerUnavailable, "paused"),
    ("a refusal without a reason", Answer(400, b"", "text/plain"), LedgerUnavailable, "HTTP 400"),
    ("a request that PostgREST cannot read", Answer(400, error("PGRST102", "Empty or invalid json")), LedgerUnavailable, "PGRST102"),
    (
        "a mistake of the caller's",
        Answer(400, error("LQ001", "tenant: too long", hint="shorten it")),
        InvalidInput,
        "tenant: too long; sho",
    ),
]


@pytest.mark.parametrize(("what", "answer", "expected", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_stays_is_told_at_once(
    transport: SupabaseTransport, server: CannedServer, what: str, answer: Answer, expected: type[LedgerqError], message: str
) -> None:
    server.always = answer
    with pytest.raises(expected, match=message) as caught:
        transport.call("f", {})
    assert type(caught.value) is expected, what
    assert len(server.requests) == 1


NO_API = [
    ("no such page", Answer(404, b"<html>not here</html>", "text/html"), "not here"),
    ("no such project", Answer(404, b'{"error": "project not found"}'), "HTTP 404"),
    ("another address", Answer(301, b"", "text/html", {"location": "https://elsewhere.invalid/"}), "HTTP 301"),
    ("a page that says all is well", Answer(200, b"<html>log in</html>", "text/html"), "log in"),
    ("nothing at all", Answer(204, b"", "text/plain"), "HTTP 204"),
    ("a firewall", Answer(403, b"<html>blocked</html>", "text/html"), "blocked"),
]


@pytest.mark.parametrize(("what", "answer", "message"), NO_API, ids=[case[0] for case in NO_API])
def test_what_is_no_api_may_be_one_in_a_moment(
    transport: SupabaseTransport, server: CannedServer, what: str, answer: Answer, message: str
) -> None:
    """A gateway that is being changed says such things too; what stays is a wrong address."""
    server.next.extend([answer, answer])
    assert transport.call("f", {}) == {}, what
    server.always = answer
    with pytest.raises(ConfigurationError, match="SUPABASE_URL") as caught:
        transport.call("f", {})
    assert message in str(caught.value)


BROKEN = [b'{"a":"\xff"}', b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b'{"jobs": [{"id"', b"", b"[]", b'"text"', b"1"]


@pytest.mark.parametrize("body", BROKEN, ids=[str(body[:12]) for body in BROKEN])
def test_an_answer_that_cannot_be_read_is_no_mistake_of_the_callers(
    transport: SupabaseTransport, server: CannedServer, body: bytes
) -> None:
    server.next.append(Answer(200, body))
    assert transport.call("f", {"fine": "data"}) == {}
    server.always = Answer(200, body)
    with pytest.raises(LedgerUnavailable, match="broken JSON"):
        transport.call("f", {"fine": "data"})


@pytest.mark.parametrize("content_type", ["Application/JSON", ""])
def test_an_answer_is_known_by_what_it_is(transport: SupabaseTransport, server: CannedServer, content_type: str) -> None:
    server.always = Answer(200, b'{"done": true}', content_type)
    assert transport.call("f", {}) == {"done": True}


def test_no_function_for_longer_than_a_cache_is_stale(transport: SupabaseTransport, server: CannedServer) -> None:
    server.always = Answer(404, error("PGRST202", "Could not find the function ledgerq.f(request) in the schema cache"))
    with pytest.raises(SchemaMismatch, match="reload schema"):
        transport.call("f", {})
    assert len(server.requests) > 1


def test_whoever_asks_for_a_longer_wait_than_a_call_has_is_not_asked_again(transport: SupabaseTransport, server: CannedServer) -> None:
    server.always = Answer(429, b"slow down", "text/plain", {"retry-after": "7"})
    with pytest.raises(LedgerUnavailable, match="fewer calls") as caught:
        transport.call("f", {})
    assert caught.value.retry_after == 7
    assert len(server.requests) == 1


def test_a_wait_that_is_asked_for_is_kept(server: CannedServer) -> None:
    server.next.append(Answer(503, error("PGRST002", "Could not query the schema cache"), headers={"retry-after": "1"}))
    transport = SupabaseTransport(server.url, SECRET_KEY, timeout_s=30)
    asked_at = time.monotonic()
    assert transport.call("f", {}) == {}
    assert time.monotonic() - asked_at >= 1
    transport.close()


def test_what_is_sent(transport: SupabaseTransport, server: CannedServer) -> None:
    transport.call("job_get", {"job": "x"})
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/rest/v1/rpc/job_get")
    assert json.loads(request.body) == {"request": {"job": "x"}}
    assert request.headers["content-profile"] == "ledgerq"
    assert request.headers["user-agent"].startswith("ledgerq/")


def test_a_key_of_the_new_kind_is_no_bearer(transport: SupabaseTransport, server: CannedServer) -> None:
    transport.call("f", {})
    assert server.requests[0].headers["apikey"] == SECRET_KEY
    assert "authorization" not in server.requests[0].headers


def test_a_legacy_key_is_one(server: CannedServer) -> None:
    key = legacy_key("service_role")
    transport = SupabaseTransport(server.url + "/", f" {key}\n")
    transport.call("f", {})
    assert (server.requests[0].headers["apikey"], server.requests[0].headers["authorization"]) == (key, f"Bearer {key}")
    transport.close()


def test_no_proxy_leads_to_this_machine(server: CannedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    transport = SupabaseTransport(server.url, SECRET_KEY)
    assert transport.call("f", {}) == {}
    transport.close()


def test_nothing_of_supabase_py_warns(server: CannedServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = SupabaseTransport(server.url, SECRET_KEY)
        transport.call("f", {})
        transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.supabase.co",
        "postgresql://h/db",
        "https://",
        "https://user:s3cret-pass@x.supabase.co",
        "https://x.supabase.co/rest/v1",
        "https://x.supabase.co?a=s3cret-pass",
        "https://x:port",
        "https://[::1",
        "https://a..b.co",
        f"https://{'x' * 70}.co",
        "https://<ref>.supabase.co",
        "https://\u2026.supabase.co",
        "https://a b.co",
        "https://x.co?",
        "https://x.co#",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_URL") as caught:
        SupabaseTransport(url, SECRET_KEY)
    assert "s3cret-pass" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "  ",
        "two words",
        "sb_secret_with\nnewline",
        "schlüssel",
        "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH",
        legacy_key("anon"),
        legacy_key("authenticated"),
    ],
)
def test_what_is_no_key_for_servers(key: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY") as caught:
        SupabaseTransport("https://x.supabase.co", key)
    assert len(key) < 10 or key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("HTTPS://X.supabase.co/", "https://X.supabase.co"),
        ("http://kong_1:8000", "http://kong_1:8000"),
        ("http://[::1]:54321", "http://[::1]:54321"),
        ("https://host/supabase/", "https://host/supabase"),
    ],
)
def test_what_is_an_address(url: str, place: str) -> None:
    transport = SupabaseTransport(url, SECRET_KEY)
    assert transport._project.place == f"the ledger at {place}"
    transport.close()


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTPS_PROXY", "nonsense://127.0.0.1:1"), ("SSL_CERT_FILE", "/nonexistent")]
)
def test_what_the_environment_gets_wrong_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    transport = SupabaseTransport("https://x.supabase.co", SECRET_KEY)
    with pytest.raises(ConfigurationError, match=name):
        transport.call("f", {})


@pytest.mark.parametrize(
    "key",
    [
        SECRET_KEY,
        legacy_key("service_role"),
        "a.b.c",
        "e30.W10.x",
        f"a.{urlsafe_b64encode(b'[' * 10_000).decode()}.c",
        "some-self-hosted-key",
    ],
)
def test_what_only_the_project_can_judge(server: CannedServer, key: str) -> None:
    """It is sent as it is, and found wrong or right there."""
    transport = SupabaseTransport(server.url, key)
    assert transport.call("f", {}) == {}
    assert server.requests[0].headers["apikey"] == key
    transport.close()


def test_nobody_there() -> None:
    transport = SupabaseTransport(f"http://127.0.0.1:{free_port()}", SECRET_KEY, timeout_s=0.5)
    with pytest.raises(LedgerUnavailable, match="Connection refused"):
        transport.call("f", {})
    transport.close()


def test_a_closed_transport_makes_no_new_session(server: CannedServer) -> None:
    transport = SupabaseTransport(server.url, SECRET_KEY)
    transport.close()
    with pytest.raises(WrongState, match="closed"):
        transport.call("f", {})
    assert server.requests == []


def test_the_key_is_in_no_message(server: CannedServer, caplog: pytest.LogCaptureFixture) -> None:
    server.always = Answer(401, b'{"message":"Invalid API key"}')
    transport = SupabaseTransport(server.url, SECRET_KEY)
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        transport.call("f", {})
    assert SECRET_KEY not in caplog.text
    assert SECRET_KEY not in repr(transport) + repr(vars(transport))
    link: BaseException | None = caught.value
    while link is not None:
        assert SECRET_KEY not in str(link) + repr(link) + "".join(traceback.format_exception(link))
        link = link.__context__
    transport.close()


def test_what_json_cannot_say_is_named_before_anything_is_sent(transport: SupabaseTransport, server: CannedServer) -> None:
    with pytest.raises(InvalidInput, match=r"jobs\[0\]\.at is inf"):
        transport.call("f", {"jobs": [{"at": float("inf")}]})
    assert server.requests == []


def test_data_that_is_nested_too_deep_is_the_callers_mistake(transport: SupabaseTransport, server: CannedServer) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested deeper"):
        transport.call("f", {"deep": deep})  # type: ignore[dict-item]
    assert server.requests == []
    while deep:
        deep = deep.pop()  # type: ignore[assignment]  # one by one: the interpreter would free them by recursion


def test_settings_name_the_project() -> None:
    """A direct connection goes first: it answers sooner."""
    project = {"supabase_url": "https://x.supabase.co", "supabase_key": SECRET_KEY}
    assert type(open_transport(Settings.model_validate(project))) is SupabaseTransport
    both = {**project, "database_url": "postgresql://me@db.invalid/x"}
    assert type(open_transport(Settings.model_validate(both))).__name__ == "PostgresTransport"
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY"):
        open_store(Settings.model_validate({"supabase_url": "https://x.supabase.co"}))


def test_ids_are_text_on_the_way(server: CannedServer) -> None:
    """As the typed store sends them; the transport itself takes plain JSON."""
    store = open_store(Settings.model_validate({"supabase_url": server.url, "supabase_key": SECRET_KEY}))
    with store:
        server.always = Answer(200, b"null")
        assert store.job_get(UUID(int=1)) is None
    assert json.loads(server.requests[0].body) == {"request": {"job": "00000000-0000-0000-0000-000000000001"}}


def test_threads_over_tls_lose_nothing_and_log_no_key(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As to a real project: every call arrives once, and not even the libraries below tell the key."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with caplog.at_level(logging.DEBUG), serve_canned(context) as server, ThreadPoolExecutor(8) as threads:
        transport = SupabaseTransport(server.url, SECRET_KEY)
        answers = list(threads.map(lambda _: transport.call("f", {}), range(200)))
        transport.close()
    assert answers == [{}] * 200
    assert len(server.requests) == 200
    assert SECRET_KEY not in caplog.text
    assert "Bearer" not in caplog.text


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file
