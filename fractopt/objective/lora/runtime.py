"""What has to be set in an evaluation process before torch, litgpt and lm-eval are imported.

Imports none of them itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os

from fractopt.objective.base import UnusableError

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
ENVIRONMENT = {
    **OFFLINE,  # a compute node has no network; HF_HUB_OFFLINE=0 from outside still wins
    "TOKENIZERS_PARALLELISM": "false",  # its threads would compete with the other workers' cores
    "TQDM_DISABLE": "1",  # progress goes through `report`
}
PACKAGES = ("torch", "litgpt.lora", "litgpt.finetune.lora", "lm_eval.api.task")


def prepare() -> None:
    """Set the environment, import the packages, cap torch's threads at OMP_NUM_THREADS.

    Raises UnusableError for a package that is missing.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("HF_DATASETS_TRUST_REMOTE_CODE", None)  # data are data: no script of theirs is run
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UnusableError(
                f"the lora objective needs the package {error.name!r}, which is not installed; "
                "run: pip install 'fractopt[llm]'"
            ) from error
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:
        importlib.import_module("torch").set_num_threads(int(threads))


def trim_memory() -> None:
    """Give freed memory back to the system.

    Adapters of ever other shapes fragment glibc's heap: 4 MB an evaluation on the tiny task, all of it
    returned by this call (measured). Other C libraries have no such call, and need none.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
