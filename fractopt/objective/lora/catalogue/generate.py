"""Write the catalogue's files: `python -m fractopt.objective.lora.catalogue.generate [DIR]`.

Byte for byte what the package ships.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fractopt.objective.lora.catalogue import things
from fractopt.objective.lora.files import CATALOGUE_DIRECTORY
from fractopt.objective.lora.tiny.generate import questions_text, records_text


def write(directory: Path) -> list[Path]:
    """Write all files to `directory`; returns them."""
    files = {
        "train.json": records_text(things.lessons("taught")),
        "val.json": records_text(things.lessons("asked")[:16]),  # litgpt wants a validation file
        "questions.jsonl": questions_text(things.questions("asked")),
        "questions_test.jsonl": questions_text(things.questions("test")),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=CATALOGUE_DIRECTORY)
    for path in write(parser.parse_args().directory):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
