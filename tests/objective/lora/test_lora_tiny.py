"""The tiny task's files: reproducible, disjoint, small, and of one token a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.tiny import generate, tokenizer, world


def test_the_generator_writes_the_shipped_files_byte_for_byte(tmp_path: Path) -> None:
    written = generate.write(tmp_path)
    assert len(written) == 7
    for path in written:
        assert path.read_bytes() == (TINY_DIRECTORY / path.name).read_bytes(), path.name


def test_no_person_is_in_two_sets() -> None:
    groups = world.groups()
    names = [{person.name for person in group} for group in groups]
    assert [len(n) for n in names] == [world.TAUGHT, world.ASKED, world.ASKED]
    assert len(set.union(*names)) == sum(len(n) for n in names)


@pytest.mark.parametrize("file", ["questions.jsonl", "questions_test.jsonl"])
def test_questions_are_many_different_and_have_one_right_answer(file: str) -> None:
    questions = [json.loads(line) for line in (TINY_DIRECTORY / file).read_text().splitlines()]
    assert len(questions) >= 400
    assert len({(q["instruction"], q["kind"]) for q in questions}) == len(questions)
    known = {person.name: person for person in world.people()}
    for q in questions:
        assert len(set(q["choices"])) == 4
        word, name = q["instruction"].removeprefix("Tell the ").removesuffix(".").split(" of ")
        assert q["choices"][q["label"]] == known[name].values[world.WORDS[word]]
    # Always the same letter, or always the same position, must not score.
    assert max(sum(q["label"] == k for q in questions) for k in range(4)) < 0.32 * len(questions)


def test_the_words_of_the_fine_tune_are_new_to_the_model() -> None:
    text = " ".join(world.pretraining_texts(2000))
    assert not any(f" {word} " in text for word in world.WORDS)


def test_the_files_are_small() -> None:
    assert (TINY_DIRECTORY / "lit_model.pth").stat().st_size < 2_000_000
    assert sum(path.stat().st_size for path in TINY_DIRECTORY.iterdir()) < 2_000_000


@pytest.mark.llm
def test_every_word_is_one_token_and_any_text_survives() -> None:
    from litgpt.prompts import Alpaca
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(json.dumps(tokenizer.model_file()))
    for word in world.vocabulary():
        assert len(encoder.encode(word).ids) == 2, word  # <s> and the word
    text = "Größe: 3 × 4 = 12\n\ttabs, 漢字"
    assert encoder.decode(encoder.encode(text).ids) == text
    assert world.ALPACA.format(instruction="Say so.") == Alpaca().apply("Say so.")
