"""Write the tiny task's files: `python -m fractopt.objective.lora.tiny.generate [DIR] [--weights]`.

Without --weights everything but the model's weights is written, byte for byte what the package
ships. With it the model is pre-trained as well (about 2 CPU minutes); its bits depend on the
machine, its accuracy hardly.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.tiny import tokenizer, world


def write(directory: Path) -> list[Path]:
    """Write all files but the weights to `directory`; returns them."""
    taught, validation, test = world.groups()
    validation_lessons = world.lessons(validation, 5)[:16]  # litgpt wants a validation file
    files: dict[str, str] = {
        "tokenizer.json": _json(tokenizer.model_file(), indent=None),
        "tokenizer_config.json": _json(tokenizer.configuration()),
        "generation_config.json": _json({"bos_token_id": 0, "eos_token_id": 1}),
        "train.json": records_text(world.lessons(taught, 3)),
        "val.json": records_text(validation_lessons),
        "questions.jsonl": questions_text(world.questions(validation, 4)),
        "questions_test.jsonl": questions_text(world.questions(test, 6)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in files]


def _json(content: Any, indent: int | None = 1) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False) + "\n"


def records_text(records: list[dict[str, str]]) -> str:
    """JSON, one record a line."""
    return "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n"


def questions_text(questions: list[world.Question]) -> str:
    """JSON lines, one question each."""
    lines = [
        json.dumps({"instruction": q.instruction, "choices": q.choices, "label": q.label, "kind": q.kind})
        for q in questions
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=TINY_DIRECTORY)
    parser.add_argument("--weights", action="store_true", help="pre-train the model as well")
    arguments = parser.parse_args()
    for path in write(arguments.directory):
        print(f"{path}: {path.stat().st_size} bytes")
    if arguments.weights:
        from litgpt.utils import save_config

        from fractopt.objective.lora.tiny import pretrain

        config = pretrain.configuration()
        save_config(config, arguments.directory)
        content = _json(pretrain.huggingface_configuration(config))
        (arguments.directory / "config.json").write_text(content, encoding="utf-8")
        pretrain.train(arguments.directory)


if __name__ == "__main__":
    main()
