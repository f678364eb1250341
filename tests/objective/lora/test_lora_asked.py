"""A run asks the same questions to its end, or says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import Evaluation, UnusableError, silent
from fractopt.objective.lora.asked import FILE, ask_the_same
from fractopt.trial import Kind, Part


def test_what_was_asked_first_is_asked_to_the_end(tmp_path: Path) -> None:
    ask_the_same(tmp_path, {"a (search)": "1"})
    ask_the_same(tmp_path, {"a (search)": "1", "a (unseen)": "2"})
    ask_the_same(tmp_path, {"b (test)": "3"})
    assert json.loads((tmp_path / FILE).read_text()) == {
        "a (search)": "1",
        "a (unseen)": "2",
        "b (test)": "3",
    }
    before = (tmp_path / FILE).stat()
    ask_the_same(tmp_path, {"a (unseen)": "2"})
    assert (tmp_path / FILE).stat() == before
    with pytest.raises(UnusableError, match=r"questions of a \(search\) and of b \(test\) are not those"):
        ask_the_same(tmp_path, {"a (search)": "4", "a (unseen)": "2", "b (test)": "5", "c (test)": "6"})
    assert (tmp_path / FILE).stat() == before


@pytest.mark.parametrize("content", ["", "[1]", '{"a (search)": 7}', "{" * 10_000, "\x00" * 70_000])
def test_a_file_that_is_none_of_ours_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    ask_the_same(tmp_path, {"a (search)": "1"})
    assert json.loads((tmp_path / FILE).read_text()) == {"a (search)": "1"}


def test_no_link_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"a (search)": "2"}')
    shared = tmp_path / "evals"
    shared.mkdir()
    (shared / FILE).symlink_to(elsewhere)
    ask_the_same(shared, {"a (search)": "1"})
    assert elsewhere.read_text() == '{"a (search)": "2"}'
    assert not (shared / FILE).is_symlink()


@pytest.mark.llm
def test_changed_questions_are_found_before_anything_is_trained(objective: Any, tmp_path: Path) -> None:
    point = {
        "learning_rate": 1e-2,
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "weight_decay": 0.01,
    }
    own = tmp_path / "000001"
    own.mkdir()
    base = Evaluation(1, Kind.BASE, {}, 0, directory=own, shared=tmp_path)
    objective(base, silent)
    asked = json.loads((tmp_path / FILE).read_text())
    assert list(asked) == ["tiny (search)"]
    phases: list[str] = []

    def report(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        phases.append(phase)

    (tmp_path / FILE).write_text(json.dumps({**asked, "tiny-test (test)": "of another version"}))
    objective(base, silent)  # the test is not asked for
    tested = Evaluation(2, Kind.SEARCH, point, 0, shared=tmp_path, parts=(Part.SEARCH, Part.TEST))
    with pytest.raises(UnusableError, match=r"tiny-test \(test\) are not those that this run asked before"):
        objective(tested, report)
    assert phases == []
