"""The parser process: reads one document after another from standard input and answers on standard output.

A frame is a line of JSON with `size`, then so many bytes. A request is `{kind, declared, limits}` and the document's bytes; an
answer is `{status, …}` and the text in UTF-8. The process adds at most `memory_bytes` to its address space, and ends with
its parent: the kernel tells it (Linux), and the end of standard input does, also in the middle of a document.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final

from ledgerq.documents.load.model import Loaded, LoadLimits, Unreadable

PR_SET_PDEATHSIG: Final = 1
"""linux/prctl.h"""


def main() -> None:
    end_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent, which then ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a parser prints must not be taken for an answer
    requests: SimpleQueue[tuple[dict[str, Any], bytes]] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    limited = False
    while True:
        header, data = requests.get()
        limits = LoadLimits(**header["limits"])
        if not limited:
            limit_memory(limits.memory_bytes)
            limited = True
        write_frame(answers, *_answer(header, data, limits))


def end_with_parent(parent: int) -> None:
    """Ask for a kill at the death of the thread that started us."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit_memory(extra: int) -> None:
    """Let the address space grow by so many bytes and no further; write no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _pages(0) + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """The next frame.

    Raises:
        EOFError: the other side is gone.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    data = stream.read(header["size"])
    if len(data) != header["size"]:
        raise EOFError
    return header, data


def write_frame(stream: IO[bytes], header: dict[str, Any], data: bytes) -> None:
    stream.write(json.dumps({**header, "size": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


def _read_requests(stream: IO[bytes], requests: SimpleQueue[tuple[dict[str, Any], bytes]]) -> None:
    while True:
        try:
            requests.put(read_frame(stream))
        except (EOFError, OSError, ValueError):
            os._exit(0)


def _answer(header: dict[str, Any], data: bytes, limits: LoadLimits) -> tuple[dict[str, Any], bytes]:
    try:
        return _described(_parser(header["kind"])(data, header["declared"], limits), limits)
    except Unreadable as reason:
        return {"status": "unreadable", "reason": str(reason)}, b""
    except MemoryError:
        return {"status": "memory"}, b""
    except Exception as error:  # noqa: BLE001 - parsers of foreign bytes raise anything; each is the document's fault
        return {"status": "unreadable", "reason": f"cannot be parsed: {type(error).__name__}: {error}"[:500]}, b""


def _described(loaded: Loaded, limits: LoadLimits) -> tuple[dict[str, Any], bytes]:
    if len(loaded.text) > limits.max_characters:
        raise Unreadable(f"has more than {limits.max_characters:,} characters of text")
    described = {
        "status": "loaded",
        "content_type": loaded.content_type,
        "title": loaded.title,
        "metadata": loaded.metadata,
        "segments": [asdict(segment) for segment in loaded.segments],
        "resident_bytes": _pages(1),
    }
    return described, loaded.text.encode()


def _parser(kind: str) -> Callable[[bytes, str | None, LoadLimits], Loaded]:
    """Imported when first needed: most workers never see one of the two."""
    if kind == "pdf":
        from ledgerq.documents.load.pdf import load_pdf

        return lambda data, _, limits: load_pdf(data, limits)
    from ledgerq.documents.load.html import load_html

    return lambda data, declared, _: load_html(data, declared=declared)


def _pages(field: int) -> int:
    """Bytes of address space (field 0) or memory (1) that this process has now; 0 where the system does not tell.

    Not from `getrusage`: its peak is that of the parent, from before the process became another program.
    """
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[field]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
