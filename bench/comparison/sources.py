"""A fingerprint of the sources that one of our optimizers consists of.

A result is filed under it, so that results of different code are never mixed. It covers every module of
fractopt that the optimizer's own imports, at any remove, and the C++ tree where that is among them; not
comments, docstrings or layout.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

import fractopt
from fractopt.optimizer import registry

ROOT = Path(fractopt.__file__).parent
NATIVE = "fractopt.tree"


@functools.cache
def fingerprint(optimizer: str) -> str:
    """Eight hexadecimal digits for an optimizer's registered name; it and the Study that drives it."""
    wanted = [registry.find(optimizer).__module__, "fractopt.optimizer.study"]
    seen: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        path = _path(name)
        if path is not None and name not in seen and name != registry.__name__:
            seen[name] = path
            wanted += _imports(path)
    digest = hashlib.sha256()
    for _, path in sorted(seen.items()):
        digest.update(_code(path).encode())
    if NATIVE in seen:
        for path in sorted((ROOT / "tree" / "native").iterdir()):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _path(module: str) -> Path | None:
    place = ROOT.parent.joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.exists()), None)


def _imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fractopt."):
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant()), *_] as body:
                body.pop(0)  # a docstring
    return ast.dump(tree)
