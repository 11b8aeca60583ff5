"""Bytes of documents from the row, from files and from a storage, and what is said when they cannot be had."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID

import pytest

from ledgerq.content.blobs import DocumentBlobs, StorageSettings
from ledgerq.errors import ConfigurationError, DocumentError, ServiceUnavailable
from ledgerq.models import DocumentBody, DocumentWork


def work(body: DocumentBody | None) -> DocumentWork:
    return DocumentWork(document=UUID(int=1), disposition="process", uri="doc:1", body=body)


def at(path: Path) -> DocumentWork:
    return work(DocumentBody(kind="file", path=str(path)))


def test_inline_text_is_its_utf_8() -> None:
    assert DocumentBlobs().read(work(DocumentBody(kind="inline", text="Größe")), max_bytes=100) == "Größe".encode()
    with pytest.raises(DocumentError, match="doc:1: has more than 3 bytes"):
        DocumentBlobs().read(work(DocumentBody(kind="inline", text="Größe")), max_bytes=3)
    with pytest.raises(DocumentError, match="doc:1: the ledger has no text"):
        DocumentBlobs().read(work(None), max_bytes=3)


def test_a_file_is_read_whole_and_never_beyond_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * 10)
    assert DocumentBlobs().read(at(file), max_bytes=10) == b"x" * 10
    with pytest.raises(DocumentError, match="doc:1: has more than 9 bytes"):
        DocumentBlobs().read(at(file), max_bytes=9)


def test_what_is_no_regular_file_does_not_stop_the_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DocumentError, match=r"doc:1: .* is not a regular file"):
        DocumentBlobs().read(at(tmp_path / "pipe"), max_bytes=9)
    with pytest.raises(IsADirectoryError):
        DocumentBlobs().read(at(tmp_path), max_bytes=9)
    with pytest.raises(FileNotFoundError):
        DocumentBlobs().read(at(tmp_path / "gone"), max_bytes=9)


def test_files_outside_of_the_root_are_not_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "rooted-secret"
    root.mkdir()
    secret.write_text("secret")
    (root / "fine.txt").write_text("fine")
    (root / "link").symlink_to(secret)
    (root / "inner").symlink_to(root / "fine.txt")
    blobs = DocumentBlobs(files_root=root)
    assert blobs.read(at(root / "fine.txt"), max_bytes=9) == blobs.read(at(root / "inner"), max_bytes=9) == b"fine"
    for outside in (secret, root / "link", root / ".." / "rooted-secret"):
        with pytest.raises(DocumentError, match=r"doc:1: .* is outside of LEDGERQ_FILES_ROOT"):
            blobs.read(at(outside), max_bytes=9)


class Storage(BaseHTTPRequestHandler):
    """The one address of Supabase Storage that is asked; the object's name says how it answers."""

    def do_GET(self) -> None:
        key = self.headers["apikey"]
        assert key in ("secret", "sb_secret_1")
        assert self.headers["Authorization"] == ("Bearer secret" if key == "secret" else None), "the new kind of key is no token"
        name = self.path.removeprefix("/storage/v1/object/b%2F1/")
        outer, _, meant = name.partition("-")
        status = int(outer) if outer.isdigit() else 200
        body = (
            json.dumps({"statusCode": meant}).encode()
            if meant
            else b""
            if status != 200
            else b"y" * 3_000_000
            if name == "big"
            else name.encode()
        )
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            return

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Storage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["secret", "sb_secret_1"])
def blobs(request: pytest.FixtureRequest, storage: str) -> Iterator[DocumentBlobs]:
    made = DocumentBlobs(StorageSettings(url=storage, key=request.param))
    yield made
    made.close()


def stored(name: str) -> DocumentWork:
    return work(DocumentBody(kind="storage", bucket="b/1", path=name))


def test_an_object_of_the_storage_is_read(blobs: DocumentBlobs) -> None:
    assert blobs.read(stored("folder/a b.txt"), max_bytes=100) == b"folder/a%20b.txt"
    assert len(blobs.read(stored("big"), max_bytes=3_000_000)) == 3_000_000


def test_a_download_is_broken_off_at_the_limit(blobs: DocumentBlobs) -> None:
    with pytest.raises(DocumentError, match="more than 1,000 bytes"):
        blobs.read(stored("big"), max_bytes=1_000)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("404", DocumentError),
        ("400", DocumentError),
        ("401", ConfigurationError),
        ("403", ConfigurationError),
        ("408", ServiceUnavailable),
        ("425", ServiceUnavailable),
        ("503", ServiceUnavailable),
        ("400-404", DocumentError),
        ("400-403", ConfigurationError),
        ("400-429", ServiceUnavailable),
        ("400-500", ServiceUnavailable),
        ("400-odd", DocumentError),
    ],
)
def test_what_the_storage_refuses_is_told_apart(blobs: DocumentBlobs, answer: str, error: type[Exception]) -> None:
    meant = answer.rpartition("-")[2]
    with pytest.raises(error, match=meant if meant.isdigit() else "400"):
        blobs.read(stored(answer), max_bytes=100)


def test_the_storage_may_say_how_long_to_wait(blobs: DocumentBlobs) -> None:
    with pytest.raises(ServiceUnavailable) as raised:
        blobs.read(stored("429"), max_bytes=100)
    assert raised.value.retry_after == 7


def test_a_storage_that_is_away_or_not_configured() -> None:
    away = DocumentBlobs(StorageSettings(url="http://127.0.0.1:1", key="secret"))
    with pytest.raises(ServiceUnavailable, match="doc:1: Supabase Storage did not answer"):
        away.read(stored("a"), max_bytes=100)
    away.close()
    with pytest.raises(ConfigurationError, match="SUPABASE_URL"):
        DocumentBlobs().read(stored("a"), max_bytes=100)
    with pytest.raises(DocumentError, match="no bucket and path"):
        away.read(work(DocumentBody(kind="storage", path="a")), max_bytes=100)
