"""What must not stand in the source at all, looked for in its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fractopt"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SERIALISERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}
BY_PICKLE = {
    "send",
    "recv",
    "bcast",
    "isend",
    "irecv",
    "ssend",
    "gather",
    "scatter",
    "allgather",
    "allreduce",
}


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    return [(path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]


def name_of(node: ast.expr) -> str:
    """Dotted, as far as it is made of names."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> object:
    """The constant given for keyword `name`; None without one, ... for what is no constant."""
    for given in call.keywords:
        if given.arg == name:
            return given.value.value if isinstance(given.value, ast.Constant) else ...
    return None


def imports_a_serialiser(node: ast.AST) -> bool:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.partition(".")[0] in SERIALISERS for name in names)


def loads_more_than_weights(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if name_of(node.func) == "torch.load":
        return keyword(node, "weights_only") is not True
    if name_of(node.func) in ("np.load", "numpy.load"):
        return keyword(node, "allow_pickle") not in (None, False)
    return False


def starts_a_shell(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    shell = keyword(node, "shell") not in (None, False)
    return shell or name_of(node.func) in (
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "commands.getoutput",
    )


def trusts_remote_code(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and keyword(node, "trust_remote_code") not in (None, False)


def evaluates_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and name_of(node.func) in ("eval", "exec", "compile", "__import__")


def reads_yaml_with_objects(node: ast.AST) -> bool:
    loads = ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
    return isinstance(node, ast.Call) and name_of(node.func) in loads


def sends_by_pickle(node: ast.AST) -> bool:
    """mpi4py's lower-case methods of a communicator, which it is in `mpi.py` only."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = name_of(node.func.value).rpartition(".")[2]
    return node.func.attr in BY_PICKLE and owner.strip("_") in ("comm", "world", "COMM_WORLD")


RULES: list[tuple[Callable[[ast.AST], bool], str]] = [
    (imports_a_serialiser, "from pickle import loads"),
    (loads_more_than_weights, "torch.load(path, weights_only=False)"),
    (loads_more_than_weights, "torch.load(path)"),
    (loads_more_than_weights, "np.load(path, allow_pickle=True)"),
    (starts_a_shell, "subprocess.run(text, shell=True)"),
    (starts_a_shell, "os.system(text)"),
    (trusts_remote_code, "load_dataset(name, trust_remote_code=True)"),
    (evaluates_text, "eval(text)"),
    (reads_yaml_with_objects, "yaml.load(text)"),
    (sends_by_pickle, "self._comm.send(1, dest=0)"),
    (sends_by_pickle, "MPI.COMM_WORLD.bcast(1)"),
]


@pytest.mark.parametrize(("rule", "breach"), RULES, ids=[breach for _, breach in RULES])
def test_nothing_in_the_source_breaks_the_rule(rule: Callable[[ast.AST], bool], breach: str) -> None:
    assert any(rule(node) for node in ast.walk(ast.parse(breach)))  # the rule knows what it looks for
    assert len(SOURCES) > 80
    assert [f"{path}:{node.lineno}" for path, node in nodes() if rule(node)] == []  # type: ignore[attr-defined]
