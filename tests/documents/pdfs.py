"""PDF files made by hand, so that each test sees what is in them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import pypdf


def pdf(pages: Sequence[str], *, title: str | None = None, outline: Sequence[tuple[int, str]] = (), fill: bytes = b"") -> bytes:
    """A PDF with one line of Helvetica per line of text. `fill` is appended to each page's contents."""
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    catalog, tree = add(b""), add(b"")
    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    kids: list[int] = []
    for text in pages:
        packed = zlib.compress(_drawn(text) + fill)
        contents = add(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed))
        resources = b"<< /Font << /F1 %d 0 R >> >>" % font
        kids.append(
            add(b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources %s >>" % (tree, contents, resources))
        )
    objects[tree - 1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    objects[catalog - 1] = b"<< /Type /Catalog /Pages %d 0 R >>" % tree
    return _decorated(_file(objects), title, outline) if title or outline else _file(objects)


def encrypted(data: bytes, *, password: str, owner: str = "owner") -> bytes:
    """AES-256, as current programs write it. An empty password is one that readers need not give."""
    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(data)))
    writer.encrypt(user_password=password, owner_password=owner, algorithm="AES-256")
    return _written(writer)


def _drawn(text: str) -> bytes:
    lines = [line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)") for line in text.splitlines()]
    shown = b"".join(b"(%s) Tj T*\n" % line for line in lines)
    return b"BT /F1 11 Tf 14 TL 50 740 Td\n" + shown + b"ET\n" if lines else b""


def _file(objects: list[bytes]) -> bytes:
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places: list[int] = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def _decorated(data: bytes, title: str | None, outline: Sequence[tuple[int, str]]) -> bytes:
    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(data)))
    if title:
        writer.add_metadata({"/Title": title})
    for page, heading in outline:
        writer.add_outline_item(title=heading, page_number=page)
    return _written(writer)


def _written(writer: pypdf.PdfWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
