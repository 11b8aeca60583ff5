"""Run by `test_corpus.py` in a process of its own: indexes the corpus and prints the peak of its memory as JSON.

usage: ingest_corpus.py CORPUS QDRANT_URL     (QDRANT_API_KEY in the environment)
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[2]))

from ledgerq.documents.chunk import ChunkerSettings
from ledgerq.documents.vectors import VectorDB, VectorSettings
from tests.documents.world import make_world


def main() -> None:
    corpus, url = Path(sys.argv[1]), sys.argv[2]
    settings = VectorSettings(url=url, api_key=os.environ["QDRANT_API_KEY"], collection=f"test_{uuid4().hex}")
    vectors = VectorDB(settings, embedder="wordllama-l2-supercat-256", dimensions=256)
    world = make_world(vectors, chunker=ChunkerSettings())
    documents = [world.ledger.save(path.read_bytes(), uri=path.name) for path in sorted([*corpus.glob("pdf/*"), *corpus.glob("html/*")])]
    finished, peak = threading.Event(), [0]
    watcher = threading.Thread(target=_watch, args=(finished, peak))
    watcher.start()
    outcomes = world.process(*documents)
    finished.set()
    watcher.join()
    vectors._client.delete_collection(settings.collection)
    world.pipeline.close()
    print(json.dumps({"documents": len(outcomes), "peak_pss_mb": round(peak[0] / 1e6)}))  # noqa: T201


def _watch(finished: threading.Event, peak: list[int]) -> None:
    while not finished.wait(0.1):
        peak[0] = max(peak[0], sum(_pss(pid) for pid in (os.getpid(), *_children())))


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
