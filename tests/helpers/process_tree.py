"""The processes of a job, found in /proc."""

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
