"""A warm line to the ledger: one process beside the worker that keeps a connection for horse after horse.

RQ forks a horse for each run, and a connection does not survive a fork. A new one costs each run its handshake, and the database
compiles and plans every function anew in it: two thirds of a run of short tasks, measured. So the worker forks this process
once, before its first horse; a horse hands it one end of a socket pair, and sends its calls through the other.

Nothing depends on it: a call that gets no answer here goes over a connection of the horse's own, as every call of a keeper does.
That is safe because every call may be repeated.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

from ledgerq import errors
from ledgerq.errors import LedgerqError, LedgerUnavailable, ServiceUnavailable, WrongState
from ledgerq.execution.process import name_process
from ledgerq.ledger import json_text
from ledgerq.ledger.transport import Transport
from ledgerq.logs import get_logger
from ledgerq.models import Json

ANSWER_S: Final = 25.0
"""Longest wait for an answer: above the 20 s within which a transport gives up by itself."""
FRAME_S: Final = 5.0
"""Longest wait for the rest of a request that has begun."""
PARENT_SEEN_EVERY_S: Final = 1.0
_HEAD: Final = struct.Struct("!I")

log = get_logger("ledgerq.line")


class Line:
    """The worker's handle, which its horses inherit."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self.pid = pid

    @classmethod
    def open(cls, make_transport: Callable[[], Transport]) -> Line:
        """Fork the process that keeps the line. It ends by itself when the caller of this is gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _live(make_transport, theirs, parent)
        theirs.close()
        return cls(ours, pid)

    def connect(self) -> socket.socket:
        """A stream of our own to it.

        Raises:
            OSError: it is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._control, [b"line"], [theirs.fileno()], socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
        ours.settimeout(ANSWER_S)
        return ours

    def close(self) -> None:
        """Let go of it; the process ends with its parent."""
        self._control.close()


@dataclass(slots=True)
class LineTransport:
    """`ledgerq.ledger.Transport` over the line, and over a connection of its own once the line has failed."""

    line: Line
    make_direct: Callable[[], Transport]
    _stream: socket.socket | None = None
    _direct: Transport | None = None
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """See `Transport.call`."""
        with self._lock:
            if self._closed:
                raise WrongState("this way to the ledger was closed")
            if self._direct is None:
                request = json_text.encode({"function": function, "arguments": dict(arguments)}, doing=function)
                try:
                    return _answer(self._ask(request))
                except OSError as error:
                    log.warning("the line is broken; going directly", cause=f"{type(error).__name__}: {error}")
                    self._hang_up()
                    self._direct = self.make_direct()
            direct = self._direct
        return direct.call(function, arguments)

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        self._hang_up()
        if self._direct is not None:
            self._direct.close()

    def _ask(self, request: bytes) -> bytes:
        if self._stream is None:
            self._stream = self.line.connect()
        try:
            _send(self._stream, request)
            answer = _receive(self._stream)
        except BaseException:
            # RQ's timeout may strike right here. What then still arrives would be taken for the answer to the next question.
            self._hang_up()
            raise
        if answer is None:
            raise ConnectionResetError("the line hung up")
        return answer

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


# --- the process that keeps the line


def _live(make_transport: Callable[[], Transport], control: socket.socket, parent: int) -> NoReturn:
    """The child's whole life. Nothing of the parent's stack runs in it again, whatever happens."""
    code = 1
    try:
        os.setsid()
        name_process("ledgerq-line")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a horse at work may still need it; it ends with the worker
        _Exchange(make_transport(), control, parent).run()
        code = 0
    except BaseException:
        with suppress(BaseException):
            log.exception("line failed")
    finally:
        os._exit(code)


class _Exchange:
    """Takes calls of whoever is connected, one after the other."""

    def __init__(self, transport: Transport, control: socket.socket, parent: int) -> None:
        self._transport = transport
        self._control = control
        self._parent = parent
        self._clients: list[socket.socket] = []

    def run(self) -> None:
        while os.getppid() == self._parent:
            for one in self._ready():
                if one is self._control:
                    self._accept()
                else:
                    self._serve(one)
        self._transport.close()

    def _ready(self) -> list[socket.socket]:
        """Who has something to say. By poll(): select() knows no file from number 1024 on."""
        of = {one.fileno(): one for one in (self._control, *self._clients)}
        poll = select.poll()
        for fd in of:
            poll.register(fd, select.POLLIN)
        return [of[fd] for fd, _event in poll.poll(PARENT_SEEN_EVERY_S * 1000)]

    def _accept(self) -> None:
        _message, fds, _flags, _sender = socket.recv_fds(self._control, 16, 1)
        for fd in fds:
            client = socket.socket(fileno=fd)
            client.settimeout(FRAME_S)
            self._clients.append(client)

    def _serve(self, client: socket.socket) -> None:
        """One call. Whatever is wrong with a client ends that client and nobody else."""
        try:
            request = _receive(client)
            if request is not None:
                _send(client, self._call(request))
                return
        except OSError as error:
            log.info("client dropped", cause=str(error))
        self._clients.remove(client)
        client.close()

    def _call(self, request: bytes) -> bytes:
        asked = cast("dict[str, Any]", json_text.decode(request))
        try:
            return json_text.encode({"answer": self._transport.call(asked["function"], asked["arguments"])}, doing="line")
        except LedgerqError as error:
            told: dict[str, Json] = {"error": type(error).__name__, "message": str(error)}
            if isinstance(error, ServiceUnavailable):
                told["retry_after"] = error.retry_after
            return json_text.encode(told, doing="line")


# --- frames


def _send(stream: socket.socket, body: bytes) -> None:
    stream.sendall(_HEAD.pack(len(body)) + body)


def _receive(stream: socket.socket) -> bytes | None:
    """The next frame; None when the other side hung up between two."""
    head = _exactly(stream, _HEAD.size)
    if not head:
        return None
    return _exactly(stream, _HEAD.unpack(head)[0], begun=True)


def _exactly(stream: socket.socket, size: int, *, begun: bool = False) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        part = stream.recv(min(missing, 1 << 20))
        if not part:
            if parts or begun:
                raise ConnectionResetError("the other side hung up within a frame")
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _answer(frame: bytes) -> Json:
    """The answer, or the error that the ledger's own transport raised there."""
    told = cast("dict[str, Any]", json_text.decode(frame))
    if "error" not in told:
        return cast("Json", told["answer"])
    kind = getattr(errors, str(told["error"]), LedgerUnavailable)
    if issubclass(kind, ServiceUnavailable):
        raise kind(str(told["message"]), retry_after=told.get("retry_after"))
    raise kind(str(told["message"]))
