"""Objectives of other packages: found, allowed, refused where two offer the same, and broken ones named."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "security"))

from running import configure

from fractopt.config.mistakes import ConfigError
from fractopt.config.read import Config, read_config
from fractopt.objective import registry
from fractopt.objective.base import Evaluation, UnusableError, silent
from fractopt.parallel.message import Finished, Limits, Place, Setup, Task
from fractopt.parallel.worker import Supervisor, end
from fractopt.trial import Kind, Outcome

SETTINGS = """
from dataclasses import dataclass
from pathlib import Path
from fractopt.objective.base import ObjectiveSettings

Path(__file__).with_suffix(".imported").touch()

@dataclass(frozen=True)
class Settings(ObjectiveSettings):
    scale: float = 1.0
    test_metrics: tuple[str, ...] = ()
    objective = "greenfit_objective:Fit"

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError(f"scale: expected a number > 0, got {self.scale!r}")

    def mistakes(self, space):
        return [f"{name}: greenfit knows no such parameter" for name in space.names if name != "x"]

class NoSettings:
    pass

@dataclass(frozen=True)
class Bare:
    scale: float = 1.0

@dataclass(frozen=True)
class Faulty(Settings):
    def mistakes(self, space):
        return 1 / 0

@dataclass(frozen=True)
class Lost(Settings):
    objective = "greenfit_objective:Nowhere"
"""
OBJECTIVE = """
from fractopt.trial import Outcome, Status

class Fit:
    def __init__(self, settings):
        self.settings = settings

    def __call__(self, evaluation, report):
        report("fit")
        return Outcome(Status.OK, self.settings.scale * evaluation.params["x"] ** 2)
"""
GREENFIT = 'kind = "greenfit"\nscale = 2.0'
Package = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Installs a package that offers an objective; returns the file that appears when it is imported."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "greenfit.py").write_text(SETTINGS)
    (site / "greenfit_objective.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(site)

    def package(
        name: str = "greenfit", kind: str = "greenfit", value: str = "greenfit:Settings", version: str = "1.2"
    ) -> Path:
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[fractopt.objectives]\n{kind} = {value}\n")
        importlib.invalidate_caches()
        for module in ("greenfit", "greenfit_objective"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return site / "greenfit.imported"

    return package


def read(folder: Path, objective: str = GREENFIT, *overrides: str, trust: bool = True) -> Config:
    configure(folder, objective)
    return read_config(folder / "c.toml", [*overrides, *(["trust.code=true"] if trust else [])])


def mistakes(folder: Path, objective: str = GREENFIT, *overrides: str, trust: bool = True) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        read(folder, objective, *overrides, trust=trust)
    return error.value.mistakes


def test_nothing_of_it_is_imported_before_that_is_allowed(package: Package, tmp_path: Path) -> None:
    imported = package()
    assert registry.kinds() == (*registry.OBJECTIVES, "greenfit")
    assert mistakes(tmp_path, trust=False) == (
        'objective.kind: "greenfit" of the package greenfit 1.2 runs code of yours: allow it with '
        "--trust-code, or code = true under [trust]",
    )
    assert "objective.kind: expected one of command, lora, python, synthetic, greenfit" in str(
        mistakes(tmp_path, 'kind = "grenfit"')
    )
    assert not imported.exists()
    read(tmp_path)
    assert imported.exists()


def test_it_is_checked_as_one_of_ours(package: Package, tmp_path: Path) -> None:
    package()
    config = read(tmp_path, GREENFIT, "test.metrics=['f1']")
    assert config.objective == {"kind": "greenfit", "scale": 2.0, "test_metrics": ["f1"]}
    assert config.foreign_code == '"greenfit" of the package greenfit 1.2'
    assert mistakes(tmp_path, 'kind = "greenfit"\nscal = 2.0\nscale = "x"') == (
        "objective.scale: expected a number, got 'x'",
        "objective.scal: unknown key; did you mean 'scale'? Expected one of scale, test_metrics",
    )
    assert mistakes(tmp_path, 'kind = "greenfit"\nscale = -1.0') == (
        "objective.scale: expected a number > 0, got -1.0",
    )
    assert mistakes(tmp_path, GREENFIT, "space.y={type='int',low=0,high=1}", "run.anchors=['base']") == (
        "space.y: greenfit knows no such parameter",
        'run.anchors: "base" is the untuned model: it has none',
    )


def test_it_evaluates(package: Package, tmp_path: Path) -> None:
    package()
    objective = registry.build(read(tmp_path).objective)
    assert objective(Evaluation(0, Kind.SEARCH, {"x": 3.0}, 0), silent) == Outcome.of(18.0)


def test_an_evaluation_process_finds_it(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    supervisor = Supervisor(Place(1, "", 1), Setup(read(tmp_path).objective, "", Limits()))
    supervisor.start()
    supervisor.send(Task(0, 0, "search", {"x": 3.0}, 7))
    said: list[object] = []
    limit = time.monotonic() + 60.0
    while not any(isinstance(message, Finished) for message in said):
        assert time.monotonic() < limit
        said += supervisor.poll()
        time.sleep(0.01)
    end([supervisor], 5.0)
    assert isinstance(said[-1], Finished)
    assert said[-1].outcome.value == 18.0


def test_two_packages_that_offer_the_same_are_refused_whichever_was_installed_first(
    package: Package, tmp_path: Path
) -> None:
    imported = package("zebra")
    package("greenfit", version="2.0")
    assert mistakes(tmp_path) == (
        "objective.kind: the objective 'greenfit' is offered by greenfit 2.0 and by zebra 1.2: uninstall all "
        "but one",
    )
    package("hijack", "synthetic")
    (said,) = mistakes(tmp_path, 'kind = "synthetic"\nfunction = "sphere"')
    assert said.endswith("'synthetic' is offered by fractopt itself and by hijack 1.2: uninstall all but one")
    with pytest.raises(UnusableError, match="offered by fractopt itself and by hijack"):
        registry.build({"kind": "synthetic", "function": "sphere"})
    assert not imported.exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "no_such_module:Settings",
            "cannot be loaded (ModuleNotFoundError: No module named 'no_such_m",
        ),
        (
            "greenfit:Nothing",
            "cannot be loaded (AttributeError: module 'greenfit' has no attribute ",
        ),
        (
            "greenfit:NoSettings",
            "is broken: expected a dataclass of settings at greenfit:NoSett",
        ),
        ("greenfit:Bare", "is broken: its settings greenfit:Bare lack objective, no_base, repeats_exactly, "),
    ],
)
def test_a_broken_one_is_said_in_one_sentence(
    package: Package, tmp_path: Path, value: str, says: str
) -> None:
    package(value=value)
    (said,) = mistakes(tmp_path)
    assert said.startswith(f"objective.kind: the objective 'greenfit' of the package greenfit 1.2 {says}")
    with pytest.raises(UnusableError, match=r"the objective 'greenfit' of the package greenfit 1\.2"):
        registry.build({"kind": "greenfit"})


def test_one_that_fails_when_it_is_asked(package: Package, tmp_path: Path) -> None:
    package(value="greenfit:Faulty")
    assert mistakes(tmp_path) == (
        'objective: "greenfit" of the package greenfit 1.2 failed when it was asked about its settings: '
        "ZeroDivisionError: division by zero",
    )


def test_one_whose_objective_cannot_be_had(package: Package, tmp_path: Path) -> None:
    package(value="greenfit:Lost")
    spec = read(tmp_path).objective
    with pytest.raises(UnusableError, match=r"'greenfit' cannot be loaded from 'greenfit_objective:Nowhere'"):
        registry.build(spec)


def test_a_node_without_the_package_says_so() -> None:
    with pytest.raises(UnusableError, match="unknown objective 'greenfit'; expected one of command, lora"):
        registry.build({"kind": "greenfit"})
