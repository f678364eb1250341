"""Where models and data are on this machine; imports no torch, downloads nothing.

What `fractopt fetch` brings lies under one directory, for whose parent the hub's client has the word:

    $HF_HOME/fractopt/                 ~/.cache/huggingface/fractopt where HF_HOME is not set
        models/ORG/NAME/refs.json      what branches and tags stood for when they were fetched
        models/ORG/NAME/COMMIT/        a litgpt checkpoint; it gets this name when it is whole
        models/fractopt/NAME/VERSION/  the same, made of a file in a package of this version
        models/local/NAME-KEY/         the same, made of Hugging Face files or of a GGUF file
        data/ORG/NAME/refs.json, COMMIT/SUBSET.jsonl
        data/alpaca/

What litgpt's own commands downloaded below the current directory (checkpoints, data/alpaca) is found too.
"""

from __future__ import annotations

import json
import os
import re
from os.path import isfile  # which says no where a Path raises: names too long for any file
from pathlib import Path
from typing import Any

from fractopt.foreign import read_file

TINY = "fractopt/tiny"  # a model, and data for it
CATALOGUE = "fractopt/catalogue"  # data for a pretrained model
SMOLLM2 = "fractopt/SmolLM2-135M-Instruct"  # a pretrained model, out of a package of PyPI
TINY_DIRECTORY = Path(__file__).parent / "tiny" / "data"
CATALOGUE_DIRECTORY = Path(__file__).parent / "catalogue" / "data"
# What comes with this package.
PACKAGED_MODELS = {TINY: TINY_DIRECTORY}
PACKAGED_DATA = {TINY: TINY_DIRECTORY, CATALOGUE: CATALOGUE_DIRECTORY}
PACKAGED_TASKS = ("tiny", "tiny-test", "catalogue", "catalogue-test")
MAIN = "main"  # the revision that takes whatever is there
REFS = "refs.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_BYTES = 50_000_000  # of JSON; the index of the largest models has some


def hub_home() -> Path:
    """HF_HOME, by the rule of the hub's own client."""
    default = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(os.path.expanduser(os.environ.get("HF_HOME") or default)))


def home() -> Path:
    """Where `fractopt fetch` puts what it makes."""
    return hub_home() / "fractopt"


def resolved(place: Path, revision: str) -> str | None:
    """The commit that `revision` is, or was when it was fetched to `place`; None where nobody knows."""
    commit = revision if COMMIT.fullmatch(revision) else read_json(place / REFS).get(revision)
    return commit if isinstance(commit, str) and COMMIT.fullmatch(commit) else None


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file of JSON; empty where there is none, or something else."""
    try:
        # The hub's cache is made of links, which `read_file` does not follow.
        found = json.loads(read_file(path.resolve(), _MOST_BYTES)) if isfile(path) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
