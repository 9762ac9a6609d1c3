"""What this machine is doing now: load, memory, and its NVIDIA GPUs; cheap, without torch."""

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ASK_GPUS = (
    "--query-gpu=index,name,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)
_PATIENCE_S = 3.0
_MIB = 1 << 20


@dataclass(frozen=True)
class GpuGauge:
    """One GPU. Bytes of memory; the share in use is None where the driver does not tell."""

    name: str
    busy: float | None
    used: int
    total: int

    @property
    def device(self) -> str:
        """What the queue for it is called."""
        return f"cuda-{self.name.partition(' ')[0]}"


@dataclass(frozen=True)
class Gauges:
    """One reading. What the system does not tell is None or left out."""

    cores: int = 0
    load: float | None = None  # processes that want a core, mean of the last minute
    memory_used: int | None = None  # bytes, as memory_total
    memory_total: int | None = None
    gpus: tuple[GpuGauge, ...] = ()
    disk_free: int | None = None  # bytes, of the folder that was asked for
    disk_total: int | None = None


def read_gauges(folder: Path | None = None) -> Gauges:
    """A reading, with the disk of `folder`; may take seconds where a driver is slow: call it in a
    thread."""
    load = used = total = free = disk = None
    if folder is not None:
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            free, disk = usage.free, usage.total
    with suppress(OSError):
        load = os.getloadavg()[0]
    memory = _memory()
    if memory is not None:
        used, total = memory
    return Gauges(os.cpu_count() or 0, load, used, total, _gpus(), free, disk)


def _memory() -> tuple[int, int] | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if ":" in line}
        return sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, ValueError, LookupError):  # not Linux
        return None


def _gpus() -> tuple[GpuGauge, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        said = subprocess.run(
            [program, *_ASK_GPUS],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gauge for line in said.splitlines() if (gauge := parse_gpu(line)) is not None)


def parse_gpu(line: str) -> GpuGauge | None:
    """A line of nvidia-smi; None where it holds no memory (a GPU cut into parts says [N/A])."""
    cells = [cell.strip() for cell in line.split(",")]
    try:
        index, name, busy, used, total = cells
        share = float(busy) / 100 if busy.replace(".", "", 1).isdigit() else None
        return GpuGauge(f"{index} {name}", share, int(used) * _MIB, int(total) * _MIB)
    except ValueError:
        return None
