"""Samples the machine and the training process under the names that MLflow's System metrics page shows."""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType

import psutil

logger = logging.getLogger(__name__)


class SystemSampler:
    """Rates are over the time since the sample before, network since the first. ``pid`` is the training process."""

    def __init__(self, pid: int) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._pid = pid
        self._network = psutil.net_io_counters()
        self._nvml, self._gpus = _open_gpus()
        psutil.cpu_percent()
        self._process_tree()

    def sample(self) -> dict[str, float]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }
        values |= self._network_values() | self._process_tree() | self._gpu_values()
        return {f"system/{name}": round(float(value), 1) for name, value in values.items()}

    def _network_values(self) -> dict[str, float]:
        now, first = psutil.net_io_counters(), self._network
        if now is None or first is None:
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - first.bytes_recv) / 1e6,
            "network_transmit_megabytes": (now.bytes_sent - first.bytes_sent) / 1e6,
        }

    def _process_tree(self) -> dict[str, float]:
        """Measure the training process with its workers; 100 % is one core. This uploader, a child too, is left out."""
        try:
            root = self._processes.get(self._pid) or psutil.Process(self._pid)
            members = [root, *(child for child in root.children(recursive=True) if child.pid != os.getpid())]
        except psutil.Error:
            return {}
        # the same objects as before, since each remembers when it was last asked
        self._processes = {member.pid: self._processes.get(member.pid, member) for member in members}
        cpu = memory = 0.0
        for process in self._processes.values():
            try:
                cpu += process.cpu_percent()
                memory += process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
        return {"process_cpu_percentage": cpu, "process_memory_megabytes": memory / 1e6}

    def _gpu_values(self) -> dict[str, float]:
        values: dict[str, float] = {}
        nvml = self._nvml
        if nvml is None:
            return values
        for index, gpu in enumerate(self._gpus):
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                values[f"gpu_{index}_memory_usage_percentage"] = 100 * memory.used / memory.total
                values[f"gpu_{index}_memory_usage_megabytes"] = memory.used / 1e6
                values[f"gpu_{index}_utilization_percentage"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
                watts = nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3
                values[f"gpu_{index}_power_usage_watts"] = watts
                limit = nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3
                values[f"gpu_{index}_power_usage_percentage"] = 100 * watts / limit
            except nvml.NVMLError as error:  # some cards tell less than others
                logger.debug("GPU %s does not tell all: %s", index, error)
        return values


def _open_gpus() -> tuple[ModuleType | None, list[object]]:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, []
    try:
        nvml.nvmlInit()
        return nvml, [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        logger.info("no GPU is watched: %s", error)
        return None, []
