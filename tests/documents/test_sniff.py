"""Which loader a document gets, and in which encoding its text is read."""

from __future__ import annotations

import bz2
import gzip
import random
import time

import pytest

from ledgerq.documents.load.encoding import charset_of, declared_in_html, decode, is_text
from ledgerq.documents.load.model import HTML, MARKDOWN, PDF, PLAIN, Unreadable
from ledgerq.documents.load.sniff import sniff


@pytest.mark.parametrize(
    ("data", "declared", "uri", "kind"),
    [
        (b"%PDF-1.7\n...", None, "a.txt", PDF),
        (b"junk\0 before %PDF-1.4", "text/plain", "a", PDF),
        (b"words before %PDF-1.4", "application/pdf", "a", PDF),
        (b"\n%PDF-1.4\n", None, "a", PDF),
        (b"A PDF file begins with `%PDF-1.4`.", None, "notes.md", MARKDOWN),
        (b"RIFF is a container format.", None, "a", PLAIN),
        (b"BZh is how bzip2 files begin, GIF89 is a format, 7z another.", None, "a", PLAIN),
        (b"x", None, "//[draft/notes.md", MARKDOWN),
        (b"<!--" + b"licence " * 500 + b"--> <!-- two --><html>", None, "a", HTML),
        (b"<!DOCTYPE html><p>x", "text/plain", "a.txt", HTML),
        (b"\xef\xbb\xbf  <!-- hi --> <HTML><body>", None, "a", HTML),
        (b'<?xml version="1.0"?><html xmlns="x">', None, "a", HTML),
        ("<!doctype html>".encode("utf-16"), None, "a", HTML),
        (b"<p>a fragment", "text/html; charset=utf-8", "a", HTML),
        (b"# x", "text/markdown", "a.txt", MARKDOWN),
        (b"# x", "text/plain", "https://example.org/README.md?raw=1", MARKDOWN),
        (b"# x", None, "notes.MARKDOWN", MARKDOWN),
        (b"<p>x", "application/octet-stream", "page.htm", HTML),
        (b"x", "application/json", "a.md", PLAIN),
        (b"x", None, "Makefile", PLAIN),
        ("naïve".encode("cp1252"), None, "a.txt", PLAIN),
    ],
)
def test_bytes_then_declaration_then_name(data: bytes, declared: str | None, uri: str, kind: str) -> None:
    assert sniff(data, declared=declared, uri=uri) == kind


@pytest.mark.parametrize(
    ("data", "declared", "why"),
    [
        (b"PK\x03\x04rest", None, "ZIP archive or an Office document"),
        (b"\x89PNG\r\n\x1a\n", "text/plain", "PNG picture"),
        (gzip.compress(b"text", mtime=0), None, "gzip"),
        (bz2.compress(b"text"), None, "bzip2"),
        (bz2.compress(b""), None, "bzip2"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", None, "RIFF"),
        (b"{\\rtf1", None, "RTF"),
        (random.Random(1).randbytes(5_000), None, "binary data of an unknown type"),
        (b"text with \0 in it", "text/plain", "binary data of an unknown type"),
        (b"not a pdf", "application/pdf", "declared as a PDF document"),
    ],
)
def test_what_no_loader_reads_is_refused_with_its_kind(data: bytes, declared: str | None, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        sniff(data, declared=declared, uri="x.bin")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_that_need_no_declaration(encoding: str) -> None:
    text = "Zürich, “quoted”, café\n" * 3
    assert is_text(text.encode(encoding))
    assert decode(text.encode(encoding)).lstrip("\ufeff") == text


@pytest.mark.parametrize(("encoding", "text"), [("shift_jis", "日本語のテキスト"), ("gb18030", "中文的文本"), ("koi8-r", "русский текст")])
def test_encodings_that_need_one(encoding: str, text: str) -> None:
    data = (text * 40).encode(encoding)
    assert is_text(data, declared=encoding)
    assert decode(data, declared=encoding) == text * 40


RUSSIAN = "Съешь ещё этих мягких французских булок, да выпей чаю. " * 20


@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1"])
def test_one_bad_byte_spoils_no_utf8(declared: str | None) -> None:
    for text in ("naïve café — 10 €", RUSSIAN):
        data = text.encode() + b"\xff."
        assert is_text(data, declared=declared)
        assert decode(data, declared=declared) == f"{text}\ufffd."


def test_one_bad_byte_spoils_no_declared_encoding() -> None:
    data = RUSSIAN.encode("cp1251") + b"\x98"
    assert is_text(data, declared="windows-1251")
    assert decode(data, declared="windows-1251") == f"{RUSSIAN}\ufffd"


def test_a_wrong_declaration_of_utf8_costs_nothing() -> None:
    assert decode("naïve".encode("cp1252"), declared="utf-8") == "naïve"


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("iso-8859-1", "cp1252", "“quoted” — 10 €"),
        ("us-ascii", "cp1252", "“quoted”"),
        ("gb2312", "gb18030", "朱镕基"),
        ("shift_jis", "cp932", "①髙"),
        ("euc-kr", "cp949", "똠방각하"),
    ],
)
def test_names_of_encodings_mean_what_files_have(declared: str, encoding: str, text: str) -> None:
    data = (text * 20).encode(encoding)
    assert is_text(data, declared=declared)
    assert decode(data, declared=declared) == text * 20


def test_comments_take_no_longer_than_their_length() -> None:
    began = time.thread_time()
    assert sniff(b"<!---->" * 30_000 + b"x", declared=None, uri="a") == PLAIN
    assert time.thread_time() - began < 1


def test_valid_utf8_goes_before_a_wrong_declaration() -> None:
    assert decode("naïve".encode(), declared="iso-8859-1") == "naïve"


@pytest.mark.parametrize("declared", ["nonsense", "base64", "rot13", "utf-16", "zlib_codec", "", None])
def test_a_declaration_that_is_no_encoding_is_passed_over(declared: str | None) -> None:
    for text in ("naïve", "naïveté, "):
        assert decode(text.encode("cp1252"), declared=declared) == text


def test_bytes_that_windows_1252_lacks_become_replacement_characters() -> None:
    assert decode(b"a\x81b\xff") == "a\ufffdbÿ"


def test_an_end_in_the_middle_of_a_character_is_still_text() -> None:
    assert is_text(("é" * 40_000).encode())
    assert is_text(b"a" + ("é" * 40_000).encode())


def test_where_declarations_are_found() -> None:
    assert charset_of('text/html; charset="ISO-8859-2"') == "ISO-8859-2"
    assert charset_of("text/html") is None
    assert declared_in_html(b"<html><meta charset='koi8-r'>") == "koi8-r"
    assert declared_in_html(b'<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=windows-1251">') == "windows-1251"
    assert declared_in_html(b'<?xml version="1.0" encoding="iso-8859-15"?>') == "iso-8859-15"
    assert declared_in_html(b"<html>") is None
    assert declared_in_html(b'<meta charset="UTF-16LE">') == "utf-8"
