"""Where the bytes of documents are: in the ledger's row, in a file that every worker sees, or in Supabase Storage."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ledgerq.errors import ConfigurationError, DocumentError, ServiceUnavailable
from ledgerq.ledger.project import is_token
from ledgerq.models import DocumentBody, DocumentWork

if TYPE_CHECKING:
    import httpx

STORAGE_TIMEOUT_S: Final = 30.0
"""For connecting, and for each block of a download. The task's own timeout bounds the whole."""
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """A Supabase project, and a key that may read its buckets."""

    url: str
    key: str


class DocumentBlobs:
    """Reads documents of every kind of body. Threads may share it; make it after a fork and close it at the end."""

    def __init__(self, storage: StorageSettings | None = None, *, files_root: Path | None = None) -> None:
        """`files_root` is the folder outside of which no file is read."""
        self._settings = storage
        self._files_root = files_root
        self._client: httpx.Client | None = None

    def read(self, work: DocumentWork, *, max_bytes: int) -> bytes:
        """All bytes of the document's present revision.

        Raises:
            DocumentError: they can never be had (gone, no regular file, more than `max_bytes`); names the document's uri.
            ServiceUnavailable: the storage does not answer.
            ConfigurationError: there is no storage configured, or its key is refused.
            OSError: what reading a file says; a missing or closed file is permanent.
        """
        body = work.body
        if body is None:
            raise DocumentError(f"{work.uri}: the ledger has no text of it")
        if body.kind == "inline":
            return _inline(work, body, max_bytes)
        if body.kind == "file":
            return _file(work, body, max_bytes, self._files_root)
        return self._stored(work, body, max_bytes)

    def close(self) -> None:
        """Close the connections to the storage. The object may be used again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _stored(self, work: DocumentWork, body: DocumentBody, max_bytes: int) -> bytes:
        import httpx

        if not body.bucket or not body.path:
            raise DocumentError(f"{work.uri}: its body names no bucket and path")
        address = f"/storage/v1/object/{quote(body.bucket, safe='')}/{quote(body.path)}"
        try:
            with self._http().stream("GET", address) as response:
                _check_answer(work, response)
                return _collect(work, response, max_bytes)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"{work.uri}: Supabase Storage did not answer ({type(error).__name__}: {error})") from error

    def _http(self) -> httpx.Client:
        import httpx

        if self._settings is None:
            raise ConfigurationError("a document is in Supabase Storage: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY")
        if self._client is None:
            headers = {"apikey": self._settings.key}
            if is_token(self._settings.key):
                headers["Authorization"] = f"Bearer {self._settings.key}"
            self._client = httpx.Client(base_url=self._settings.url, headers=headers, timeout=STORAGE_TIMEOUT_S)
        return self._client


def _inline(work: DocumentWork, body: DocumentBody, max_bytes: int) -> bytes:
    data = (body.text or "").encode()
    if len(data) > max_bytes:
        raise _too_big(work, max_bytes)
    return data


def _file(work: DocumentWork, body: DocumentBody, max_bytes: int, root: Path | None) -> bytes:
    if not body.path:
        raise DocumentError(f"{work.uri}: its body names no path")
    path = Path(body.path)
    if root is not None:
        path = path.resolve()  # and this is what is opened: a link that is changed now leads nowhere else
        if not path.is_relative_to(root.resolve()):
            raise DocumentError(f"{work.uri}: {body.path} is outside of LEDGERQ_FILES_ROOT")
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DocumentError(f"{work.uri}: {body.path} is not a regular file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _too_big(work, max_bytes)
    return data


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe in the place of the file must not stop the worker until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_answer(work: DocumentWork, response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    status = _meant(response) if status == 400 else status
    if status in (401, 403):
        raise ConfigurationError(f"Supabase Storage refuses the key (HTTP {status}); check SUPABASE_SERVICE_ROLE_KEY")
    if status in (408, 425, 429) or status >= 500:
        raise ServiceUnavailable(f"{work.uri}: Supabase Storage answered HTTP {status}", retry_after=_retry_after(response))
    raise DocumentError(f"{work.uri}: is not in Supabase Storage (HTTP {status})")


def _meant(response: httpx.Response) -> int:
    """Supabase Storage answers 400 for many errors, with the status that is meant in the body."""
    try:
        response.read()
        return int(response.json()["statusCode"])
    except (ValueError, TypeError, LookupError):
        return 400


def _collect(work: DocumentWork, response: httpx.Response, max_bytes: int) -> bytes:
    data = bytearray()
    for block in response.iter_bytes(_BLOCK):
        data += block
        if len(data) > max_bytes:
            raise _too_big(work, max_bytes)
    return bytes(data)


def _retry_after(response: httpx.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdigit() else None


def _too_big(work: DocumentWork, max_bytes: int) -> DocumentError:
    return DocumentError(f"{work.uri}: has more than {max_bytes:,} bytes")
