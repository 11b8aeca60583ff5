"""The vector server over HTTP: the key, the limits, and answers in Qdrant's envelope.

One request at a time, on the event loop: the engine keeps the interpreter's lock while it writes, so threads would add
locks and win nothing.
"""

from __future__ import annotations

import hmac
import time

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ledgerq.local.vectors.catalogue import Catalogue
from ledgerq.local.vectors.endpoints import answer
from ledgerq.local.vectors.errors import Refusal

VERSION = "1.20.0"
"""The Qdrant whose words are spoken: clients compare it with their own."""
MAX_BODY = 32 * 1024 * 1024
"""Bytes; Qdrant's own default (`service.max_request_size_mb`)."""
OPEN_PATHS = ("/healthz", "/livez", "/readyz")
"""Answered without a key, as Qdrant does; so is the root."""
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
log = structlog.get_logger("ledgerq.local.vectors")


def make_app(catalogue: Catalogue, api_key: str) -> Starlette:
    async def serve(request: Request) -> Response:
        started = time.perf_counter()
        try:
            body = await _body(request, api_key)
            result = answer(catalogue, request.method, request.url.path, body)
        except Refusal as refusal:
            return _refused(refusal, started)
        except Exception as error:
            log.exception("request failed", method=request.method, path=request.url.path)
            return _refused(Refusal(500, f"Service internal error: {error}"), started)
        return _json({"result": result, "status": "ok", "time": time.perf_counter() - started})

    return Starlette(
        routes=[
            Route("/", _about),
            *(Route(path, _healthy) for path in OPEN_PATHS),
            Route("/{path:path}", serve, methods=METHODS),
        ]
    )


async def _about(_: Request) -> Response:
    return _json({"title": "qdrant - vector search engine", "version": VERSION, "commit": "ledgerq local subset"})


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("all shards are ready")


async def _body(request: Request, api_key: str) -> bytes:
    _check_key(request, api_key)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refusal(413, f"Payload too large (limit: {MAX_BODY} bytes)")
    return bytes(body)


def _check_key(request: Request, api_key: str) -> None:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = request.headers.get("api-key") or bearer
    if not given:
        raise Refusal(401, "Must provide an API key or an Authorization bearer token")
    if not hmac.compare_digest(given.encode(), api_key.encode()):
        raise Refusal(401, "Invalid API key or JWT")


def _refused(refusal: Refusal, started: float) -> Response:
    content = {"status": {"error": refusal.message}, "time": time.perf_counter() - started}
    return _json(content, refusal.status)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
