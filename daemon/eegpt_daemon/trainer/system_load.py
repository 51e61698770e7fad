"""Load of the machine for the `system` records: psutil for the process, NVML for NVIDIA GPUs where there are any."""

from __future__ import annotations

import time

import psutil

from eegwatch.run.records import System

EVERY_S = 5.0  # cpu_percent costs 25 µs and NVML more: they belong at this pace, not in the step record


class Vitals:
    """Yields a `system` record at most every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._next = time.monotonic() + EVERY_S
        self._gpus = _gpus()

    def due(self, step: int) -> System | None:
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + EVERY_S
        return System(
            time=time.time(),
            step=step,
            cpu_percent=self._process.cpu_percent(),
            rss_bytes=self._process.memory_info().rss,
            gpu=[_read(gpu) for gpu in self._gpus],
        )


def _gpus() -> list[object]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []  # no NVIDIA driver here: the list in the record stays empty


def _read(gpu: object) -> dict[str, float]:
    import pynvml

    return {
        "util_percent": float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        "memory_bytes": float(pynvml.nvmlDeviceGetMemoryInfo(gpu).used),
        "temperature_c": float(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU)),
    }
