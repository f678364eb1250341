"""Directories that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fractopt.durable import whole_directory


def test_a_directory_appears_whole_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with whole_directory(place) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("text")
        assert not place.exists()
    assert (place / "inner" / "file").read_text() == "text"
    assert [path.name for path in place.parent.iterdir()] == ["b"]


def test_an_empty_directory_gives_way(tmp_path: Path) -> None:
    place = tmp_path / "b"
    place.mkdir()
    with whole_directory(place) as aside:
        (aside / "file").write_text("text")
    assert (place / "file").read_text() == "text"


def fill(place: Path, then: Callable[[], None]) -> None:
    with whole_directory(place) as aside:
        (aside / "file").write_text("text")
        then()


def test_what_goes_wrong_leaves_nothing_not_even_directories_above(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("in the middle")

    for place in (tmp_path / "a" / "b" / "c", tmp_path / "d"):
        with pytest.raises(RuntimeError, match="in the middle"):
            fill(place, fail)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    full, file, link, late = (tmp_path / name for name in ("full", "file", "link", "late"))

    def be_faster() -> None:
        late.mkdir()
        (late / "theirs").write_text("theirs")

    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for place in (full, file, link):
        with pytest.raises(FileExistsError):
            fill(place, pytest.fail)
    with pytest.raises(OSError, match="not empty"):
        fill(late, be_faster)
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file", "link", "late"}
    assert (late / "theirs").read_text() == "theirs"
