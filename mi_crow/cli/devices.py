"""What this machine's devices do, and which jobs have them or wait for them."""

from pathlib import Path
from typing import Any

from mi_crow.cli.formatting import number, print_json, share, size
from mi_crow.cli.tables import print_facts, print_line, print_table
from mi_crow.jobs.device_lock import QueueLook, look_at_queues
from mi_crow.jobs.gauges import Gauges, read_gauges

_READINGS = ("cores", "load", "memory_used", "memory_total", "disk_free", "disk_total")


def show_devices(folder: Path, as_json: bool) -> None:
    """Prints the gauges of the machine, with the disk of `folder`, and the queue of each device
    that has one."""
    gauges, queues = read_gauges(folder), look_at_queues()
    if as_json:
        print_json(_json(gauges, queues))
        return
    facts = {}
    if gauges.load is not None:
        facts["CPU"] = f"load {number(gauges.load, 3)} on {gauges.cores} cores"
    if gauges.memory_used is not None and gauges.memory_total:
        facts["memory"] = f"{size(gauges.memory_used)} of {size(gauges.memory_total)} in use"
    if gauges.disk_free is not None and gauges.disk_total:
        facts["disk"] = f"{size(gauges.disk_free)} of {size(gauges.disk_total)} free"
    for gpu in gauges.gpus:
        busy = "" if gpu.busy is None else f", {share(gpu.busy)} busy"
        facts[f"GPU {gpu.name}"] = f"{size(gpu.used)} of {size(gpu.total)} in use{busy}"
    print_facts(facts)
    print_line()
    if not queues:
        print_line("no job has a device or waits for one")
        return
    columns = ["device", "job", "workspace…", "waiting"]
    rows = [[one.device, one.job, one.workspace, ", ".join(one.waiting)] for one in queues]
    print_table(columns, rows)


def queue_words(queue: QueueLook) -> str:
    """Who has the device and how many wait, in a sentence."""
    has = "is free"
    if queue.job:
        has = f"has job {queue.job}"
        has += f" of workspace {queue.workspace}" if queue.workspace else ""
    waiting = len(queue.waiting)
    wait = f"; {waiting} job{'s' if waiting > 1 else ''} waiting" if waiting else ""
    return f"{queue.device} {has}{wait}"


def _json(gauges: Gauges, queues: list[QueueLook]) -> dict[str, Any]:
    return {
        **{name: getattr(gauges, name) for name in _READINGS},
        "gpus": [
            {
                "device": gpu.device,
                "name": gpu.name.partition(" ")[2],
                "busy": gpu.busy,
                "memory_used": gpu.used,
                "memory_total": gpu.total,
            }
            for gpu in gauges.gpus
        ],
        "queues": [
            {
                "device": one.device,
                "job_id": one.job or None,
                "workspace": one.workspace or None,
                "waiting": list(one.waiting),
            }
            for one in queues
        ],
    }
