"""The catalogue's files: reproducible, disjoint, with one right answer, in the prompt of the fine-tune."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractopt.objective.lora.catalogue import generate, things
from fractopt.objective.lora.files import CATALOGUE_DIRECTORY


def test_the_generator_writes_the_shipped_files_byte_for_byte(tmp_path: Path) -> None:
    written = generate.write(tmp_path)
    assert {path.name for path in written} == {path.name for path in CATALOGUE_DIRECTORY.iterdir()}
    for path in written:
        assert path.read_bytes() == (CATALOGUE_DIRECTORY / path.name).read_bytes(), path.name


def test_nothing_is_in_two_sets_or_of_two_kinds() -> None:
    listed = [thing for words in things.THINGS.values() for thing in words.split()]
    assert len(set(listed)) == len(listed) == len(things.THINGS) * len(things.SETS) * things.EACH
    sets = [{thing for thing, _ in things.things(part)} for part in things.SETS]
    assert set.union(*sets) == set(listed)
    assert sum(len(part) for part in sets) == len(listed)


@pytest.mark.parametrize("file", ["questions.jsonl", "questions_test.jsonl"])
def test_questions_have_one_right_answer_in_any_place(file: str) -> None:
    kind_of = {thing: kind for kind, words in things.THINGS.items() for thing in words.split()}
    questions = [json.loads(line) for line in (CATALOGUE_DIRECTORY / file).read_text().splitlines()]
    assert len(questions) == 160
    for question in questions:
        thing = question["instruction"].removeprefix("Under which heading is the ").removesuffix("?")
        assert len(set(question["choices"])) == 4
        assert question["choices"][question["label"]] == things.HEADINGS[kind_of[thing]]
    assert max(sum(question["label"] == k for question in questions) for k in range(4)) < 0.35 * 160


@pytest.mark.llm
def test_questions_are_asked_in_the_prompt_of_the_fine_tune() -> None:
    from litgpt.prompts import prompt_styles

    from fractopt.config.read import read_config
    from fractopt.objective.lora.catalogue.questions import catalogue_task

    job = read_config(Path(__file__).parents[3] / "jobs" / "smollm2.toml").objective
    task = catalogue_task("catalogue")
    document = next(iter(task.validation_docs()))
    assert task.doc_to_text(document) == prompt_styles[job["data"]["prompt_style"]]().apply(
        document["instruction"]
    )
    assert task.config.target_delimiter == ""
