"""Which files a command means."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ledgerq.cli.files import FileSet, find_files, shown
from ledgerq.cli.ingest import name_of
from ledgerq.errors import InvalidInput


def names(found: FileSet) -> list[str]:
    return [file.path.name for file in found.files]


def reasons(found: FileSet) -> dict[str, str]:
    return {file.path.name: file.reason for file in found.left_out}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.md").write_text("# b")
    (tmp_path / "a.TXT").write_text("a")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.html").write_text("<p>c")
    return tmp_path


def test_a_folder_is_one_set_in_the_order_of_names(folder: Path) -> None:
    (found,) = find_files([folder])
    assert names(found) == ["a.TXT", "b.md", "c.html"]
    assert found.title == str(folder)


def test_a_file_is_described_by_hash_size_and_an_absolute_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (found,) = find_files([Path("b.md")])
    (file,) = found.files
    assert file.content_hash == hashlib.sha256(b"# b").hexdigest()
    assert file.byte_size == 3
    assert file.uri == (folder / "b.md").as_uri()
    assert file.content_type == "text/markdown"


def test_single_files_make_one_set_and_each_folder_another(folder: Path) -> None:
    found = find_files([folder / "b.md", folder / "deep", folder / "a.TXT"])
    assert [(one.title, names(one)) for one in found] == [("2 files", ["b.md", "a.TXT"]), (str(folder / "deep"), ["c.html"])]


def test_what_is_reached_twice_belongs_to_the_first_set(folder: Path) -> None:
    found = find_files([folder / "b.md", folder, folder])
    assert [names(one) for one in found] == [["b.md"], ["a.TXT", "c.html"], []]


def test_hidden_entries_are_not_taken_from_folders(folder: Path) -> None:
    (folder / ".hidden.md").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.md").write_text("x")
    (found,) = find_files([folder])
    assert names(found) == ["a.TXT", "b.md", "c.html"]
    assert found.left_out == ()


def test_a_hidden_file_that_is_named_is_taken(folder: Path) -> None:
    (folder / ".notes.md").write_text("x")
    (found,) = find_files([folder / ".notes.md"])
    assert names(found) == [".notes.md"]


def test_other_formats_in_a_folder_are_named_and_are_no_failure(folder: Path) -> None:
    (folder / "picture.PNG").write_bytes(b"\x89PNG")
    (folder / "Makefile").write_text("all:")
    (found,) = find_files([folder])
    assert ".png files are not taken from folders" in reasons(found)["picture.PNG"]
    assert "files without an ending" in reasons(found)["Makefile"]
    assert not any(file.failed for file in found.left_out)


def test_another_format_that_is_named_is_left_to_the_worker_to_judge(folder: Path) -> None:
    (folder / "notes.rst").write_text("x")
    (found,) = find_files([folder / "notes.rst"])
    assert names(found) == ["notes.rst"]
    assert found.files[0].content_type is None


@pytest.mark.parametrize("missing", ["nothing", "deep/nothing.md", "b.md/below"])
def test_a_path_that_does_not_exist_is_named_before_anything_is_read(folder: Path, missing: str) -> None:
    with pytest.raises(InvalidInput, match=missing):
        find_files([folder / "b.md", folder / missing])


def test_nothing_named_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        find_files([])


def test_a_pipe_that_is_named_is_refused_without_waiting_for_a_writer(folder: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    with pytest.raises(InvalidInput, match="neither a file nor a folder"):
        find_files([folder / "pipe.md"])


def test_a_pipe_and_a_dead_link_in_a_folder_are_failures_of_their_own(folder: Path) -> None:
    os.mkfifo(folder / "pipe.md")
    (folder / "dead.md").symlink_to(folder / "gone.md")
    (found,) = find_files([folder])
    assert names(found) == ["a.TXT", "b.md", "c.html"]
    assert reasons(found) == {"pipe.md": "is not a regular file", "dead.md": "cannot be read: No such file or directory"}
    assert all(file.failed for file in found.left_out)


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (found,) = find_files([folder])
    assert names(found) == ["a.TXT", "b.md", "c.html"]


def test_a_name_that_is_no_text_is_a_failure_that_can_be_printed(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text("x")
    (found,) = find_files([folder])
    (left_out,) = found.left_out
    assert left_out.reason == "has a name that is not UTF-8; rename it"
    assert shown(left_out.path).encode() == os.fsencode(folder) + b"/caf\\udce9.md"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_failure(folder: Path) -> None:
    (folder / "b.md").chmod(0)
    (folder / "deep").chmod(0)
    (found,) = find_files([folder])
    (folder / "deep").chmod(0o700)
    assert reasons(found) == {"b.md": "cannot be read: Permission denied", "deep": "cannot be read: Permission denied"}


def test_paths_below_the_working_directory_are_shown_as_they_were_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert shown(folder / "deep" / "c.html") == "deep/c.html"
    assert shown(Path("/elsewhere/x.md")) == "/elsewhere/x.md"


def test_an_empty_file_is_a_file(folder: Path) -> None:
    (folder / "b.md").write_text("")
    (found,) = find_files([folder / "b.md"])
    assert found.files[0].byte_size == 0


def test_a_name_with_control_characters_is_taken_and_never_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a\x1b[2J\nb.md").write_text("# Tides")
    (one,) = find_files([Path("a\x1b[2J\nb.md")])
    assert one.title == "a\\x1b[2J\\nb.md"
    (found,) = one.files
    assert found.uri.endswith("/a%1B%5B2J%0Ab.md")
    assert name_of(found.uri) == one.title
