"""The objective of kind "command": any program is an evaluation.

The program is told what to evaluate in evaluation.json, and in the environment:

    FRACTOPT_EVALUATION   the path of evaluation.json: {"trial", "attempt", "kind", "seed", "test",
                          "test_metrics", "parameters": {NAME: VALUE}, "outcome", "progress"}
    FRACTOPT_OUTCOME      the path at which it says what came out, see `reply`; read when it has ended.
                          Best written aside and renamed, so that nobody ever reads a part of it
    FRACTOPT_PROGRESS     a file to append a line to, or to touch, now and then, see `program.run`;
                          any output is a sign of life too
    FRACTOPT_PARAMETER_NAME   the value of each parameter
    FRACTOPT_TRIAL, _ATTEMPT, _KIND, _SEED, and _TEST: 1 where the test metrics are wanted, else 0

It runs in the evaluation's own directory, which a later attempt at the same trial finds as it was left.
An exit code other than 0 is a failure, whatever it wrote.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fractopt.durable import replace_file
from fractopt.objective.base import AbsentError, Evaluation, Report
from fractopt.objective.command import program
from fractopt.objective.command.reply import read_outcome
from fractopt.objective.command.settings import CommandSettings, as_text, expand
from fractopt.space import Value
from fractopt.trial import Kind, Outcome, Status

_PARAMETER = "FRACTOPT_PARAMETER_"


class Command:
    """Runs the program once for each evaluation; raises AbsentError where there is no such program."""

    def __init__(self, settings: CommandSettings) -> None:
        self.settings = settings
        self._start = os.getcwd()
        if missing := settings.absences():
            raise AbsentError(missing[0])

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        argv = self.settings.base if evaluation.kind is Kind.BASE else self.settings.argv
        if argv is None:
            raise ValueError("there is no command for the untuned model: set objective.base")
        started = time.perf_counter()
        with _place(evaluation) as directory:
            outcome = self._run(argv, evaluation, directory, report)
        return replace(outcome, seconds=time.perf_counter() - started)

    def _run(self, argv: tuple[str, ...], evaluation: Evaluation, directory: Path, report: Report) -> Outcome:
        asked, answer, progress = (
            directory / name for name in ("evaluation.json", "outcome.json", "progress")
        )
        for left in (answer, progress):  # by an earlier attempt, which did not come to an end
            left.unlink(missing_ok=True)
        tests = self.settings.test_metrics
        question = {
            "trial": evaluation.id,
            "attempt": evaluation.attempt,
            "kind": evaluation.kind.value,
            "seed": evaluation.seed,
            "test": evaluation.test,
            "test_metrics": list(tests) if evaluation.test else [],
            "parameters": dict(evaluation.params),
            "outcome": str(answer),
            "progress": str(progress),
        }
        replace_file(asked, json.dumps(question, indent=1).encode() + b"\n", durable=False)
        values: dict[str, Value] = {
            **evaluation.params,
            "start": self._start,
            "evaluation": str(asked),
            "outcome": str(answer),
            "seed": evaluation.seed,
        }
        command = [expand(argument, values) for argument in argv]
        environment = _environment(evaluation, asked, answer, progress)
        try:
            ended = program.run(command, directory, environment, progress, report)
        except OSError as error:
            if error.filename != command[0]:
                raise
            return Outcome(Status.FAILED, message=f"{command[0]} cannot be started: {error.strerror}")
        if ended.how:
            return _failed(f"the program {ended.how}", ended.stderr)
        try:
            return read_outcome(answer, tests, evaluation.test)
        except ValueError as error:
            return _failed(f"outcome.json of the program: {error}", ended.stderr)


def _failed(what: str, stderr: str) -> Outcome:
    """Its last line says most often why; the lines before it follow."""
    lines = [line for line in stderr.replace("\r", "\n").split("\n") if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    rest = f"\nthe end of its stderr:\n{chr(10).join(lines)}" if len(lines) > 1 else ""
    return Outcome(Status.FAILED, message=f"{what}{last}{rest}")


def _environment(evaluation: Evaluation, asked: Path, answer: Path, progress: Path) -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PARAMETER)}
    return {
        **inherited,
        "FRACTOPT_EVALUATION": str(asked),
        "FRACTOPT_OUTCOME": str(answer),
        "FRACTOPT_PROGRESS": str(progress),
        "FRACTOPT_TRIAL": str(evaluation.id),
        "FRACTOPT_ATTEMPT": str(evaluation.attempt),
        "FRACTOPT_KIND": evaluation.kind.value,
        "FRACTOPT_SEED": str(evaluation.seed),
        "FRACTOPT_TEST": str(int(evaluation.test)),
        **{f"{_PARAMETER}{name}": as_text(value) for name, value in evaluation.params.items()},
    }


@contextmanager
def _place(evaluation: Evaluation) -> Iterator[Path]:
    """The evaluation's directory, as an absolute path; one for the time being where files are not kept."""
    if evaluation.directory is not None:
        yield evaluation.directory.resolve()
        return
    with TemporaryDirectory(prefix="fractopt-") as directory:
        yield Path(directory).resolve()
