"""How fast a name is on the screen and on the disk: 131,072 features, 20,000 of them named.

    python -m tests.benchmarks.tagging

The app runs on a terminal of its own. A frame that shows the name ends "painted"; a second
connection that finds it among the concepts ends "durable".
"""

import argparse
import os
import select
import sqlite3
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.store.workspace import Workspace
from tests.benchmarks.index_queries import synthetic_workspace
from tests.benchmarks.many_names import name_many
from tests.benchmarks.rows import Row, write_report
from tests.benchmarks.synthetic_index import Size
from tests.benchmarks.tui import Screen
from tests.helpers.pseudo_terminal import PROGRAM, PseudoTerminal

TAGS = 30


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/tagging.json"))
    args = parser.parse_args(argv)
    workspace = synthetic_workspace(Size(features=args.features))
    name_many(workspace, args.features)
    rows = measured(workspace)
    for row in rows:
        print(row.line())
    write_report(args.out, vars(args), rows, load=os.getloadavg())
    return 0


def measured(workspace: Workspace) -> list[Row]:
    """Names features one after the other, each by its own name."""
    painted, durable = [], []
    command = [*PROGRAM, "--workspace", str(workspace.root), "--fresh"]
    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    with PseudoTerminal(command, columns=120, rows=40, environment=environment) as terminal:
        terminal.wait_for("mi-crow")
        os.write(terminal.master, b"2")
        terminal.wait_for("▌")
        terminal.settle(1.0)
        screen = Screen(terminal)
        screen.key("n", 1.0)
        screen.key("t", 0.5)  # enter leaves the line open for the next one without a name
        for number in range(TAGS):
            name = f"q{os.getpid()}x{number}"
            for letter in name:
                screen.key(letter)
            with ThreadPoolExecutor(1) as meanwhile:
                begun = time.perf_counter()
                written = meanwhile.submit(_durable, workspace, name, begun)
                os.write(terminal.master, b"\r")
                painted.append(_painted(terminal.master, name, begun))
                durable.append(written.result())
            screen.bytes_within(1.5)
    return [
        Row("tag to painted: median, s", statistics.median(painted), "<= 0.050"),
        Row("tag to painted: most, s", max(painted)),
        Row("tag to durable: median, s", statistics.median(durable), "<= 0.150"),
        Row("tag to durable: most, s", max(durable)),
    ]


def _painted(master: int, name: str, begun: float) -> float:
    """Seconds until the terminal was sent the name: as the row of the table has it."""
    got = b""
    while time.perf_counter() - begun < 10:
        if select.select([master], [], [], 0.01)[0]:
            got += os.read(master, 1 << 16)
        if name.encode() in got:
            return time.perf_counter() - begun
    return float("inf")


def _durable(workspace: Workspace, name: str, begun: float) -> float:
    """Seconds until another connection finds the concept."""
    connection = sqlite3.connect(workspace.annotations_path)
    try:
        while time.perf_counter() - begun < 10:
            # A feature that had a name loses it after it has got the new one: two entries.
            query = (
                "SELECT 1 FROM history WHERE id > (SELECT max(id) FROM history) - 2 "
                "AND after LIKE ?"
            )
            if connection.execute(query, (f'%"{name}"%',)).fetchone():
                return time.perf_counter() - begun
            time.sleep(0.002)
    finally:
        connection.close()
    return float("inf")


if __name__ == "__main__":
    raise SystemExit(main())
