"""How much memory this process uses: what a job records beside its other readings."""

import sys
from pathlib import Path

# The readings, in bytes. Peaks are of the whole process so far.
RESIDENT = ("memory", "memory_peak")
GPU = ("gpu_memory", "gpu_memory_peak")
READINGS = (*RESIDENT, *GPU)

_STATUS = Path("/proc/self/status")
_FIELDS = {"VmRSS:": "memory", "VmHWM:": "memory_peak"}


def memory_readings() -> dict[str, float]:
    """What torch has allocated on this process's GPUs, where it uses one; else the process's
    resident set. Nothing where the system does not tell. Never imports torch."""
    return _of_gpus() or _resident()


def _of_gpus() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    gpus = range(torch.cuda.device_count())
    peak = sum(torch.cuda.max_memory_allocated(gpu) for gpu in gpus)
    if not peak:  # asked for its GPUs, but working on the CPU
        return {}
    now = sum(torch.cuda.memory_allocated(gpu) for gpu in gpus)
    return dict(zip(GPU, (float(now), float(peak)), strict=True))


def _resident() -> dict[str, float]:
    try:
        lines = [line.split() for line in _STATUS.read_text().splitlines()]
    except OSError:  # not Linux
        return {}
    known = {words[0]: words for words in lines if words and words[0] in _FIELDS}
    return {name: float(known[key][1]) * 1024 for key, name in _FIELDS.items() if key in known}
