"""The HTTP/1.1 server: a thread for each connection, kept alive, and all of them ended at the end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.postgrest.messages import JSON_TYPE, Request, Response

Answer = Callable[[Request], Response]


@contextmanager
def serving(answer: Answer, end_work: Callable[[], None]) -> Iterator[int]:
    """Serve on a free port, which is given. At the end every connection is closed, then `end_work` has to make return what still
    runs, then every thread is joined.
    """
    server = _Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="postgrest stand-in")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.end_connections()
        end_work()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, object]:
        client, address = super().get_request()
        self._open.add(client)
        return client, address

    def shutdown_request(self, request: socket.socket) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for client in tuple(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Only a client that went away gets here: `_Handler` answers every other error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )
        self._send(request, self._answer(request))

    def _answer(self, request: Request) -> Response:
        try:
            if "transfer-encoding" in request.headers:
                self.close_connection = True  # its body is still to come, and nobody reads it
                return Response(411)
            return self.server.answer(request)
        except Exception as error:
            body = {"code": "STANDIN", "message": f"the stand-in itself failed: {error!r}", "details": traceback.format_exc()}
            return Response(500, {"Content-Type": JSON_TYPE}, json.dumps(body | {"hint": None}).encode())

    def _send(self, request: Request, response: Response) -> None:
        """In one piece: a head that travels alone costs a round trip."""
        head = [
            f"HTTP/1.1 {response.status} {_phrase(response.status)}",
            f"Date: {self.date_time_string()}",
            "Server: postgrest/stand-in",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        if response.status != 204:
            head.append(f"Content-Length: {len(response.body)}")
        body = b"" if request.method == "HEAD" or response.status == 204 else response.body
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + body)

    def log_message(self, *_: object) -> None:
        """Quiet: what is refused says why in its answer."""


for _method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.serve)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
