"""The processes of a job, found in /proc."""

import os
from pathlib import Path


def below(parent: int) -> list[int]:
    """The processes that `parent` started, and those that these did."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            of = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if of == parent:
            found += [int(path.parent.name), *below(int(path.parent.name))]
    return found


def worked_s(process: int) -> float:
    """The seconds of processor time that a process has used; 0 where it is not there."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
