"""What the embedded stack and its worker weigh while they work, as proportional set size (PSS: shared pages count once).

    python bench/memory.py [--documents 10000] [PATH …]

Each figure is the highest of samples taken five times a second: a worker (with its horse, keeper, line, parser and steward) and the
whole stack while files are made searchable with the offline embedder; the same worker over one job of ten small documents, and
over one job of many. The files are those of the corpus where `LEDGERQ_CORPUS` names it, otherwise the project's own pages. Peaks
want no median: one that is above its limit is above it. Ends with 1 when one is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import HERE, process_tree, pss_mb, reachable_base, report

ROOT = HERE.parent
SAMPLE_EVERY_S = 0.2
WORKER = "worker-1"
WORKER_LIMIT_MB = 400
STACK_LIMIT_MB = 1000
MORE_LIMIT_MB = 50
"""How much more a worker may weigh over a job of ten thousand documents than over one of ten."""
NOT_IN_SETTINGS = ("LEDGERQ_", "DATABASE_", "SUPABASE_", "REDIS_", "QDRANT_", "OPENAI_", "JOB_")
"""A developer's own services have no part in this."""


@dataclass(slots=True)
class Peaks:
    """The highest PSS seen since it was made, in MB."""

    worker: float = 0.0
    stack: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """Of each part by itself."""

    def sample(self, pids: Mapping[str, int], supervisor: int) -> None:
        weights = {name: sum(map(pss_mb, process_tree(pid))) for name, pid in pids.items()}
        for name, weight in weights.items():
            self.parts[name] = max(self.parts.get(name, 0.0), weight)
        self.worker = max(self.worker, weights.get(WORKER, 0.0))
        self.stack = max(self.stack, sum(map(pss_mb, process_tree(supervisor))))


@dataclass(frozen=True, slots=True)
class Stack:
    """An embedded stack with one worker, driven by its command line."""

    directory: Path

    @classmethod
    @contextmanager
    def running(cls, directory: Path) -> Iterator[Stack]:
        stack = cls(directory)
        stack.ledgerq("up", "--detach", "--workers", "1")
        try:
            yield stack
        finally:
            stack.ledgerq("down")

    def ledgerq(self, command: str, *words: str) -> Any:
        """Its one JSON document."""
        done = subprocess.run(
            [sys.executable, "-m", "ledgerq", command, "--data-dir", str(self.directory), "--json", *words],
            stdout=subprocess.PIPE,
            env=_clean_environment(),
            check=False,
        )
        if done.returncode not in {0, 3}:  # 3: some files cannot be indexed, as some of the corpus cannot
            raise RuntimeError(f"ledgerq {command} ended with {done.returncode}: {done.stdout.decode()}")
        return json.loads(done.stdout)

    def pids(self) -> tuple[dict[str, int], int]:
        """Of each part, and of the supervisor, whose tree is everything."""
        status = self.ledgerq("status")
        return {part["name"]: part["pid"] for part in status["parts"]}, status["supervisor_pid"]

    def weigh_ingesting(self, paths: Sequence[Path]) -> tuple[Peaks, int]:
        """The peaks while these become searchable, and how many did."""
        peaks, done = Peaks(), threading.Event()
        pids, supervisor = self.pids()

        def look() -> None:
            while not done.wait(SAMPLE_EVERY_S):
                peaks.sample(pids, supervisor)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            found = self.ledgerq("ingest", *map(str, paths))
        finally:
            done.set()
            looking.join()
        return peaks, sum(one["status"] == "indexed" for one in found["documents"])


def main() -> int:
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="ledgerq-bench-", dir=reachable_base()))
    directory.chmod(0o711)
    try:
        few, many = _folder(directory / "few", 10), _folder(directory / "many", options.documents)
        with Stack.running(directory / "stack") as stack:
            files, indexed = stack.weigh_ingesting(options.paths)
            print(f"{indexed} real files: worker {files.worker:.0f} MB, stack {files.stack:.0f} MB", flush=True)
            small, _ = stack.weigh_ingesting([few])
            large, indexed_many = stack.weigh_ingesting([many])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    more = large.worker - small.worker
    stack_mb = max(files.stack, small.stack, large.stack)
    within = files.worker <= WORKER_LIMIT_MB and stack_mb <= STACK_LIMIT_MB and more <= MORE_LIMIT_MB
    print(f"a job of 10 documents: worker {small.worker:.0f} MB; of {indexed_many:,}: {large.worker:.0f} MB, {more:+.0f} MB")
    report(
        "memory",
        {
            "files": indexed,
            "worker_mb": round(files.worker, 1),
            "worker_limit_mb": WORKER_LIMIT_MB,
            "stack_mb": round(stack_mb, 1),
            "stack_limit_mb": STACK_LIMIT_MB,
            "parts_mb": {name: round(weight, 1) for name, weight in sorted(files.parts.items())},
            "worker_mb_10_documents": round(small.worker, 1),
            "documents": indexed_many,
            "worker_mb_many_documents": round(large.worker, 1),
            "more_mb": round(more, 1),
            "more_limit_mb": MORE_LIMIT_MB,
            "within_limits": within,
        },
    )
    return 0 if within else 1


def _folder(path: Path, documents: int) -> Path:
    """So many small texts, no two alike."""
    path.mkdir()
    for number in range(documents):
        (path / f"{number:05}.txt").write_text(
            f"Note {number}. The tide of day {number} came at {number % 24}:{number % 60:02}, and went again.\n"
        )
    return path


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_IN_SETTINGS)}


def _own_pages() -> list[Path]:
    return [ROOT / "docs", ROOT / "examples" / "documents"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = os.environ.get("LEDGERQ_CORPUS")
    real = [Path(corpus) / "pdf", Path(corpus) / "html"] if corpus else _own_pages()
    parser.add_argument("paths", nargs="*", type=Path, default=real)
    parser.add_argument("--documents", type=int, default=10_000)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
