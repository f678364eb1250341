"""What an evaluation takes of its device: time, energy where the device tells, memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from fractopt.objective.base import Report

POWERCAP = Path("/sys/class/powercap")  # the kernel's counters of energy, one a processor package
RESET_PEAK = Path("/proc/self/clear_refs")


class Meter:
    """Counts from its making on; what earlier attempts at the same evaluation took is added to it.

    Energy is what the whole device took, whoever else used it: one GPU, or all the processors of the host.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.device = device
        self._clock = clock
        self._energy = _gpu(device) if device.type == "cuda" else Processors()
        self._started = clock()
        self._spent = {"seconds": 0.0, "joules": 0.0}
        self._joules = self._energy()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                RESET_PEAK.write_text("5")

    def watching(self, report: Report) -> Report:
        """The same `report`, at each call of which the counters of energy are read: they must be in time."""

        def watched(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
            self._energy()
            report(phase, step, total, loss)

        return watched

    def add(self, earlier: Mapping[str, float]) -> None:
        """Count what `spent` said in an earlier attempt."""
        for name, value in earlier.items():
            self._spent[name] += value

    def spent(self) -> dict[str, float]:
        """Seconds and, where the device tells, joules since the making, and before."""
        found = {"seconds": self._clock() - self._started}
        joules = self._energy()
        if joules is not None and self._joules is not None:
            found["joules"] = joules - self._joules
        return {name: value + self._spent[name] for name, value in found.items()}

    def metrics(self) -> dict[str, float]:
        """What is recorded with an evaluation."""
        spent = self.spent()
        found = {"device/minutes": spent["seconds"] / 60.0}
        if "joules" in spent:
            found["device/joules"] = spent["joules"]
        peak = self.peak_memory()
        return found if peak is None else found | {"device/peak_bytes": peak}

    def peak_memory(self) -> float | None:
        """Bytes that were held at most since the making: of the GPU, else by this process. None: unknown."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) * 1024.0
        return None


class Processors:
    """Joules that the processors of this host have taken, as RAPL of Intel's and AMD's counts them.

    None where there is no counter, or none that this user may read. Their counters start again at 0 every
    few minutes or hours; it is for the caller to look more often than that.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _is_package(zone)]
        self._last = [0] * len(self._zones)
        self._total = 0
        self()
        self._total = 0

    def __call__(self) -> float | None:
        try:
            now = [int((zone / "energy_uj").read_text()) for zone in self._zones]
            ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        except (OSError, ValueError):
            return None
        for value, last, most in zip(now, self._last, ranges, strict=True):
            self._total += value - last if value >= last else value + most - last
        self._last = now
        return self._total / 1e6 if self._zones else None


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _gpu(device: torch.device) -> Callable[[], float | None]:
    """Joules that the GPU has taken since its driver was loaded, where NVML tells (from Volta on)."""

    def unknown() -> float | None:
        return None

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return unknown
    except (OSError, AttributeError):
        return unknown

    def joules() -> float | None:
        millijoules = ctypes.c_ulonglong()
        failed = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1e3

    return joules
