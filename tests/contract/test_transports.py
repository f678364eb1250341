"""Every transport through one suite: the scenarios of tests/parallel/transport_scenarios.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fractopt.parallel.local import LocalTransport
from fractopt.parallel.processes import ProcessesTransport
from fractopt.parallel.simulated import LogNormal, SimulatedTransport
from fractopt.parallel.transport import Transport

PARALLEL = Path(__file__).resolve().parents[1] / "parallel"
sys.path.append(str(PARALLEL))

import evaluating  # noqa: E402
import transport_scenarios as scenarios  # noqa: E402
from ranks import Job, needs_mpi  # noqa: E402


def _named(these: tuple[scenarios.Scenario, ...]) -> list[object]:
    return [pytest.param(scenario, id=scenario.__name__) for scenario in these]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def local(directory: Path) -> Iterator[Transport]:
    transport = LocalTransport(3, seed=1, build=evaluating.build)
    scenarios.begin(transport, directory, 3)
    yield transport
    transport.close(0.0)


@pytest.fixture(scope="module")
def simulated(directory: Path) -> Iterator[Transport]:
    transport = SimulatedTransport(3, LogNormal(3600.0), evaluating.build)
    scenarios.begin(transport, directory, 3)
    yield transport
    transport.close(0.0)


@pytest.fixture(scope="module")
def processes(directory: Path) -> Iterator[Transport]:
    transport = ProcessesTransport(2, command=scenarios.COMMAND)
    scenarios.begin(transport, directory, 2)
    yield transport
    transport.close(5.0)


@pytest.fixture(scope="module")
def mpi(directory: Path) -> dict[str, str]:
    code, out, err = Job(3, Path(scenarios.__file__), str(directory)).finish()
    assert code == 0, err
    results = json.loads(out.splitlines()[-1])
    assert isinstance(results, dict)
    return results


@pytest.mark.parametrize("scenario", _named(scenarios.IN_PROCESS))
def test_local(
    scenario: scenarios.Scenario, local: Transport, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenario(local, directory)


@pytest.mark.parametrize("scenario", _named(scenarios.WITHOUT_FILES))
def test_simulated(scenario: scenarios.Scenario, simulated: Transport, directory: Path) -> None:
    scenario(simulated, directory)


@pytest.mark.parametrize("scenario", _named(scenarios.SUPERVISED))
def test_processes(scenario: scenarios.Scenario, processes: Transport, directory: Path) -> None:
    scenario(processes, directory)


@pytest.mark.parametrize("scenario", [s.__name__ for s in scenarios.SUPERVISED])
class TestMpi:
    pytestmark = needs_mpi

    def test_mpi(self, scenario: str, mpi: dict[str, str]) -> None:
        assert mpi[scenario] == "", mpi[scenario]
