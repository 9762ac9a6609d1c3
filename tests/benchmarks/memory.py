"""How much memory this process holds, and held at most."""

from pathlib import Path


def resident() -> int:
    """Bytes in memory now."""
    return _status_bytes("VmRSS")


def peak() -> int:
    """The most bytes that were in memory at once; not ru_maxrss, which a child inherits."""
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status does not tell {name}")
