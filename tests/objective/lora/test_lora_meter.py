"""Time, energy and memory of an evaluation; counters of energy that start again; curves."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.lora.curve import FILE, read_curve, write_curve

llm = pytest.mark.llm


def package(powercap: Path, number: int, name: str = "package", most: int = 1000) -> Path:
    zone = powercap / f"intel-rapl:{number}"
    zone.mkdir()
    (zone / "name").write_text(f"{name}-{number}\n")
    (zone / "max_energy_range_uj").write_text(f"{most}\n")
    (zone / "energy_uj").write_text("0\n")
    return zone / "energy_uj"


@llm
def test_energy_is_the_sum_of_packages_and_survives_their_wrapping(tmp_path: Path) -> None:
    from fractopt.objective.lora.meter import Processors

    counters = [package(tmp_path, number) for number in (0, 1)]
    package(tmp_path, 2, "psys").write_text("999999")  # the whole machine: the packages again
    counters[0].write_text("900")
    energy = Processors(tmp_path)
    assert energy() == 0.0
    counters[0].write_text("950")
    counters[1].write_text("7")
    assert energy() == pytest.approx(57e-6)
    counters[0].write_text("10")  # past 1000, and from 0 again
    assert energy() == pytest.approx((57 + 60) * 1e-6)
    counters[1].unlink()
    assert energy() is None


@llm
def test_no_counter_is_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fractopt.objective.lora import meter

    assert meter.Processors(tmp_path)() is None
    assert meter.Processors(tmp_path / "missing")() is None
    monkeypatch.setattr(meter.Processors.__init__, "__defaults__", (tmp_path,))
    assert set(meter.Meter(torch.device("cpu"), lambda: 0.0).metrics()) == {
        "device/minutes",
        "device/peak_bytes",
    }


@llm
def test_the_gpus_energy_is_nvmls(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fractopt.objective.lora import meter

    class Properties:
        uuid = "0123-45"

    class Nvml:
        total = 5000

        def nvmlInit_v2(self) -> int:
            return 0

        def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
            return int(uuid != b"GPU-0123-45")

        def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
            value._obj.value = self.total
            return 0

    nvml = Nvml()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    energy = meter._gpu(torch.device("cuda"))
    assert energy() == 5.0
    nvml.total = 7500
    assert energy() == 7.5
    Properties.uuid = "another"
    assert meter._gpu(torch.device("cuda"))() is None


@llm
def test_earlier_attempts_count_and_every_report_reads_the_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fractopt.objective.lora import meter

    counter = package(tmp_path, 0)
    monkeypatch.setattr(meter.Processors.__init__, "__defaults__", (tmp_path,))
    now = [100.0]
    taken = meter.Meter(torch.device("cpu"), lambda: now[0])
    taken.add({"seconds": 30.0, "joules": 2.0})
    said: list[Any] = []
    report = taken.watching(lambda *what: said.append(what))
    for value in ("600", "200", "900"):  # it started again once in between
        counter.write_text(value)
        report("train", 1, 2, 0.5)
    now[0] += 60.0
    assert said == [("train", 1, 2, 0.5)] * 3
    assert taken.spent() == pytest.approx({"seconds": 90.0, "joules": 2.0 + 1900e-6})
    found = taken.metrics()
    assert found["device/minutes"] == 1.5
    assert found["device/joules"] == pytest.approx(2.0019)


@llm
def test_the_peak_is_this_evaluations(tmp_path: Path) -> None:
    import torch

    from fractopt.objective.lora.meter import Meter

    cpu = torch.device("cpu")
    large = Meter(cpu, lambda: 0.0)
    block = torch.ones(30_000_000)  # 120 MB
    high = large.peak_memory()
    del block
    small = Meter(cpu, lambda: 0.0).peak_memory()
    assert high is not None
    assert small is not None
    assert high - small > 100e6


def test_a_curve_survives_its_file(tmp_path: Path) -> None:
    write_curve(tmp_path, [2.5, 0.1, math.inf])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert read_curve(tmp_path)[:2] == [2.5, 0.1]
    assert math.isnan(read_curve(tmp_path)[2])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"loss": 3}', '{"loss": [[]]}', "[" * 100_000])
def test_what_is_no_curve_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError):
        read_curve(tmp_path)
