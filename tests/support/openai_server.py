"""A stand-in for OpenAI's embeddings endpoint: a real HTTP server with the real service's limits, encodings and errors.

It is not OpenAI: vectors are sums of pseudo-random word vectors, so that texts with common words are near each other. What
it refuses and how is taken from the API reference and from what the official client expects.
"""

from __future__ import annotations

import base64
import json
import math
import random
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import toktok

KEY = "sk-stand-in"
DIMENSIONS = {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072, "text-embedding-ada-002": 1_536}


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer to give instead of vectors."""

    status: int
    code: str | None = None
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str | None = None
    raw: bytes | None = None
    """The body as it is, instead of an error."""


RATE_LIMITED = Fault(429, "rate_limit_exceeded", "Rate limit reached for requests")
NO_QUOTA = Fault(429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details.")
OVERLOADED = Fault(503, None, "The engine is currently overloaded")


@dataclass(slots=True)
class OpenAIServer:
    """What was asked of it, and what it is to answer next."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    """Used up one a request, before anything else is looked at."""
    judge: Callable[[list[str]], Fault | None] = lambda _texts: None
    """Looks at the texts of each request."""
    gate: threading.Event | None = None
    """When set to an event, each request waits for it: that is how a test holds calls in flight."""
    shuffled: bool = False
    busy: int = 0
    most_busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def texts(self) -> list[str]:
        return [text for request in self.requests for text in request["input"]]

    def handle(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any] | bytes, dict[str, str]]:
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            if self.gate is not None:
                self.gate.wait(30)
            return self._answer(headers, body)
        finally:
            with self._lock:
                self.busy -= 1

    def _answer(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any] | bytes, dict[str, str]]:
        request = json.loads(body)
        with self._lock:
            self.requests.append(request)
            fault = self.faults.popleft() if self.faults else None
        if headers.get("authorization") != f"Bearer {KEY}":
            # The real one shows the ends of the key only; others that speak its API show all of it.
            return _error(Fault(401, "invalid_api_key", f"Incorrect API key provided: {headers.get('authorization', '')}"))
        fault = fault or _refusal(request) or self.judge(request["input"])
        return _error(fault) if fault else (200, _embeddings(request, shuffled=self.shuffled), {})


@contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    state = OpenAIServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, content, headers = state.handle(self.headers, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response_only(status)
            for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            return  # a client that gave up waiting

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        if state.gate is not None:
            state.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _refusal(request: dict[str, Any]) -> Fault | None:
    model, texts = request.get("model"), request.get("input")
    if model not in DIMENSIONS:
        return Fault(404, "model_not_found", f"The model `{model}` does not exist")
    if "dimensions" in request and (model.endswith("ada-002") or not 1 <= request["dimensions"] <= DIMENSIONS[model]):
        return Fault(400, None, "This model does not support specifying dimensions.")
    if not isinstance(texts, list) or not texts or any(not isinstance(text, str) or not text for text in texts):
        return Fault(400, None, "'$.input' is invalid.")
    if len(texts) > 2_048:
        return Fault(400, None, f"Invalid 'input': array too long. Expected at most 2048, got {len(texts)}.")
    counts = toktok.batch_count(texts, "cl100k_base", 1)
    if max(counts) > 8_192:
        return Fault(400, "context_length_exceeded", f"This model's maximum context length is 8192 tokens, you requested {max(counts)}.")
    if sum(counts) > 300_000:
        return Fault(400, "max_tokens_per_request", f"Requested {sum(counts)} tokens, max 300000 tokens per request")
    return None


def _embeddings(request: dict[str, Any], *, shuffled: bool) -> dict[str, Any]:
    dimensions = request.get("dimensions", DIMENSIONS[request["model"]])
    as_base64 = request.get("encoding_format") == "base64"
    data: list[dict[str, Any]] = []
    for index, text in enumerate(request["input"]):
        vector = embedding_of(text, dimensions)
        value = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if as_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    if shuffled:
        data.reverse()
    tokens = sum(toktok.batch_count(request["input"], "cl100k_base", 1))
    return {"object": "list", "model": request["model"], "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def embedding_of(text: str, dimensions: int) -> list[float]:
    """Near for texts with common words; the same everywhere."""
    vector = [0.0] * dimensions
    for word in text.lower().split():
        draw = random.Random(word)
        for _ in range(8):
            vector[draw.randrange(dimensions)] += draw.uniform(-1, 1)
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _error(fault: Fault) -> tuple[int, dict[str, Any] | bytes, dict[str, str]]:
    if fault.raw is not None:
        return fault.status, fault.raw, fault.headers
    kind = fault.kind or ("insufficient_quota" if fault.code == "insufficient_quota" else "invalid_request_error")
    return fault.status, {"error": {"message": fault.message, "type": kind, "param": None, "code": fault.code}}, fault.headers
