"""The command objective with a program that does what its parameters say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import Evaluation, silent
from fractopt.objective.registry import build
from fractopt.trial import Kind, Outcome, Part

PROGRAM = Path(__file__).with_name("obedient.py")
ARGV = [sys.executable, "-I", "-S", str(PROGRAM)]


@pytest.fixture(name="spec")
def _spec() -> Callable[..., dict[str, Any]]:
    def spec(*arguments: str, **settings: Any) -> dict[str, Any]:
        return {"kind": "command", "argv": [*ARGV, *arguments], **settings}

    return spec


@pytest.fixture
def call(tmp_path: Path, spec: Callable[..., dict[str, Any]]) -> Callable[..., Outcome]:
    """Evaluates in tmp_path/evaluation, with the parameters given."""

    def call(
        *arguments: str,
        settings: dict[str, Any] | None = None,
        report: Any = silent,
        kind: Kind = Kind.SEARCH,
        test: bool = False,
        attempt: int = 0,
        **params: Any,
    ) -> Outcome:
        directory = tmp_path / "evaluation"
        directory.mkdir(exist_ok=True)
        objective = build(spec(*arguments, **settings or {}))
        parts = (Part.SEARCH, Part.TEST) if test else (Part.SEARCH,)
        return objective(Evaluation(12, kind, params, 7, attempt, directory, parts), report)

    return call
