"""fractopt: fractal partitions and Gaussian processes for expensive black boxes, under MPI."""

from importlib import import_module
from importlib.metadata import version as _version
from typing import Any

# Resolved at first use (PEP 562): `import fractopt` costs nothing and pulls in no submodule.
_PUBLIC = {
    "Categorical": "fractopt.space",
    "Float": "fractopt.space",
    "Int": "fractopt.space",
    "Ordinal": "fractopt.space",
    "Outcome": "fractopt.trial",
    "Space": "fractopt.space",
    "Study": "fractopt.optimizer.study",
    "load": "fractopt.archive.store",
    "minimize": "fractopt.optimizer.minimize",
    "minimize_vectorized": "fractopt.optimizer.vectorized",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("fractopt")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fractopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
