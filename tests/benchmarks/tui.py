"""How quickly and how quietly the app answers, on a pseudo-terminal with 131,072 features.

    python tests/benchmarks/tui.py [--sizes 80x24 120x40 200x60] [--features 131072] [--quiet]

A training of the sample model's activations keeps the cores busy meanwhile; `--quiet` leaves it
out. The synthetic index is kept in the temporary folder for the next time.

start    from the command to the first frame, and to the first row of the feature table; and the
         processor's time until then, which depends less on what else runs
cursor   j in the feature table: from the key to the last byte of the frame, its bytes, and what
         the detail of the feature costs once the cursor rests; then held down, while the table
         scrolls, its bytes in the mean
page     ctrl+d in the feature table
open     a feature that was not shown before, by its number
sort     the next column; and a filter by a label
lists    j in the other lists (20,000 names on Concepts; saved texts on Inspect and Steer): from the
         key to the last byte, bytes, and how many of the moves drew nothing
library  the list of published SAEs, opened from the menu of Runs
idle     bytes a second when nothing happens
job      bytes a second of each screen while the training reports itself, of its log that is
         followed, and of the empty log of a job that waits for it
memory   resident memory at the end

A frame ends when nothing follows for 60 ms. Times are the 95th percentile; what else runs decides
half of them, so the load of the machine is reported. The table goes to the terminal, the numbers to
`--out`.
"""

import argparse
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.store.workspace import Workspace
from tests.benchmarks.index_queries import synthetic_workspace
from tests.benchmarks.many_names import name_many, save_many
from tests.benchmarks.rows import Row, write_report
from tests.benchmarks.synthetic_index import Size
from tests.helpers.pseudo_terminal import PROGRAM, PseudoTerminal

FRAME_ENDS_S = 0.06  # a pause within a frame is shorter, the rest before a detail is longer
REST_S = 0.7  # until a detail has followed
KB = 1000
BESIDE = 120  # columns from which the open feature is beside the table
LISTS = {  # and the keys that lead to them; Control's needs a model
    "Runs": ["1"],
    "Concepts": ["5"],
    "Inspect, saved": ["3", "\x1b", "K"],
    "Steer, saved": ["4", "\x1b", "K"],
}
_MOST_WAITS = 10  # of two seconds each


@dataclass(frozen=True)
class Frame:
    """What a key brought: seconds to its last byte, and bytes; then what followed after a rest."""

    seconds: float
    bytes: int
    later_bytes: int


class Screen:
    """The app on a terminal, asked by keys."""

    def __init__(self, terminal: PseudoTerminal) -> None:
        self._terminal = terminal

    def key(self, key: str, rest_s: float = 0.0) -> Frame:
        """Presses a key and reads the frame that it brings, then for `rest_s` what follows."""
        begun = time.perf_counter()
        os.write(self._terminal.master, key.encode())
        seconds, size = self._frame(begun, first_wait_s=2.0)
        return Frame(seconds, size, self.bytes_within(rest_s) if rest_s else 0)

    def until_whole(self) -> None:
        """Waits for what a screen reads when it comes up: on a busy machine seconds."""
        for _ in range(_MOST_WAITS):
            if self.bytes_within(2.0) < KB:
                return

    def until_read(self) -> None:
        """Waits for a list that is read: 20,000 names are silent for seconds meanwhile."""
        self._terminal.settle(1.0)

    def bytes_within(self, seconds: float) -> int:
        """How many bytes come in a time."""
        ends = time.perf_counter() + seconds
        size = 0
        while (left := ends - time.perf_counter()) > 0:
            size += self._read(left)
        return size

    def _frame(self, begun: float, first_wait_s: float) -> tuple[float, int]:
        size, last = 0, begun
        while True:
            got = self._read(FRAME_ENDS_S if size else first_wait_s)
            if not got:
                return last - begun, size
            size, last = size + got, time.perf_counter()

    def _read(self, seconds: float) -> int:
        master = self._terminal.master
        if not select.select([master], [], [], seconds)[0]:
            return 0
        return len(os.read(master, 1 << 16))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["80x24", "120x40", "200x60"])
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--quiet", action="store_true", help="no training beside it")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/tui.json"))
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the training ends with the benchmark
    workspace = synthetic_workspace(Size(features=args.features))
    name_many(workspace, args.features)
    save_many(workspace)
    rows: list[Row] = []
    # An installed program has its bytecode, and its second start finds its files in memory.
    with _opened(workspace, 80, 24) as terminal:
        terminal.wait_for("mi-crow")
    with _training(workspace, args.quiet):
        for size in args.sizes:
            columns, lines = (int(part) for part in size.split("x"))
            for row in _measured(workspace, columns, lines, busy=not args.quiet):
                rows.append(replace(row, name=f"{size} {row.name}"))
                print(rows[-1].line(), flush=True)
                write_report(args.out, vars(args), rows, load=os.getloadavg())
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0


def _measured(workspace: Workspace, columns: int, lines: int, *, busy: bool) -> Iterator[Row]:
    begun = time.perf_counter()
    with _opened(workspace, columns, lines) as terminal:
        terminal.wait_for("mi-crow")
        yield Row("start: first frame, s", time.perf_counter() - begun, "<= 0.7")
        yield Row("  processor until then, s", _processor(terminal.process.pid))
        os.write(terminal.master, b"2")
        terminal.wait_for("▌")  # the cursor of the table
        yield Row("start: first rows, s", time.perf_counter() - begun, "<= 1.2")
        yield Row("  processor until then, s", _processor(terminal.process.pid))
        terminal.settle(1.0)
        screen = Screen(terminal)
        yield from _table(screen, with_detail=columns >= BESIDE)
        yield from _other_lists(screen)
        yield from _library(screen)
        yield from _standing_still(screen, busy)
        if busy:
            yield from _logs(screen)
        yield Row("memory, MB", _resident(terminal.process.pid) / 1e6, "<= 200")


def _opened(workspace: Workspace, columns: int, lines: int) -> PseudoTerminal:
    command = [*PROGRAM, "--workspace", str(workspace.root), "--fresh"]
    written = {"PYTHONDONTWRITEBYTECODE": ""}
    return PseudoTerminal(command, columns=columns, rows=lines, environment=written)


def _table(screen: Screen, *, with_detail: bool) -> Iterator[Row]:
    screen.key("2", REST_S)
    moves = [screen.key("j", REST_S) for _ in range(14)]
    yield from _moves("cursor", moves)
    if with_detail:
        yield _size("detail after a cursor move", [move.later_bytes for move in moves], 12 * KB)
    held = _held_down(screen, "j", 60)
    yield Row("cursor held down: bytes a move", statistics.mean(held), f"<= {KB}")
    yield _time("page", [screen.key("\x04", REST_S) for _ in range(15)], 0.050)
    opened = []
    for number in range(7, 60_000, 5_000):
        for key in f"#{number}":
            screen.key(key)
        opened.append(screen.key("\r", REST_S))
        screen.key("\x1b", REST_S)
    yield _time("open a feature", opened, 0.080)
    yield _time("sort", [screen.key("o", 1.0) for _ in range(8)], 0.250)
    screen.key("/")
    typed = [screen.key(key, 1.0) for key in "label-0"]
    yield _time("filter, a letter", typed, 0.250)
    screen.key("\x1b", REST_S)
    screen.key("\x1b", REST_S)


def _other_lists(screen: Screen) -> Iterator[Row]:
    for name, keys in LISTS.items():
        for key in keys:
            screen.key(key, REST_S)
        screen.until_read()
        yield from _moves(f"{name}: cursor", [screen.key(key, REST_S) for key in "jk" * 12])
        if len(keys) > 1:
            screen.key("\x1b", REST_S)


def _library(screen: Screen) -> Iterator[Row]:
    screen.key("1", 2.0)
    opened = []
    for _ in range(12):
        screen.key("n", REST_S)
        opened.append(screen.key("l", REST_S))
        screen.key("\x1b", REST_S)
    yield _time("open the library", opened, 0.100)


def _moves(name: str, moves: Sequence[Frame]) -> Iterator[Row]:
    """A key that moves nothing would keep every limit."""
    yield _time(name, moves, 0.033)
    yield _size(name, [move.bytes for move in moves], 1 * KB)
    yield Row(f"{name}: moves that drew nothing", sum(not move.bytes for move in moves), "<= 0")


def _standing_still(screen: Screen, busy: bool) -> Iterator[Row]:
    """Idle screens, or what a job that runs brings to each of them."""
    for name, digit in zip(("Runs", "Features", "Concepts"), "125", strict=True):
        screen.key(digit, 2.0)
        screen.until_whole()
        rate = screen.bytes_within(10.0) / 10.0
        what, limit = ("a job runs", "<= 1000") if busy else ("idle", "<= 0")
        yield Row(f"{name}: {what}, bytes/s", rate, limit)


def _held_down(screen: Screen, key: str, times: int) -> list[int]:
    """The bytes of each of the moves that follow each other like those of a key that is held, the
    list scrolling below them."""
    sizes = [screen.key(key).bytes for _ in range(times)]
    screen.bytes_within(REST_S)
    return sizes


def _logs(screen: Screen) -> Iterator[Row]:
    """The newest jobs come first in the last list: one that waits, then the one that runs."""
    screen.key("1", 2.0)
    for _ in range(12):
        screen.key("j")
    for name, key in (("empty", "g"), ("followed", "j")):
        screen.key(key, REST_S)
        screen.key("l", 2.0)
        yield Row(f"{name} log: bytes/s", screen.bytes_within(10.0) / 10.0, "<= 1000")
        screen.key("\x1b", REST_S)


def _time(name: str, frames: Sequence[Frame], limit_s: float) -> Row:
    seconds = sorted(frame.seconds for frame in frames)
    at = statistics.quantiles(seconds, n=20, method="inclusive")[18]
    more = {"median": statistics.median(seconds), "n": len(seconds)}
    return Row(f"{name}: p95, s", at, f"<= {limit_s:.3f}", more)


def _size(name: str, sizes: Sequence[int], limit: int) -> Row:
    more = {"median": statistics.median(sizes), "n": len(sizes)}
    return Row(f"{name}: most bytes", max(sizes), f"<= {limit}", more)


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _processor(pid: int) -> float:
    """Seconds that all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _training(workspace: Workspace, quiet: bool) -> Iterator[None]:
    """A training job on a captured run of the sample model, for as long as the block lasts."""
    if quiet:
        yield
        return
    where = ("--workspace", str(workspace.root))

    def ask(*arguments: str) -> str:
        command = [*PROGRAM, *arguments, *where]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    if not (workspace.activations_dir / "sample").exists():
        ask("capture", "--model", "sample", "--layer", "resid_post.2", "--name", "sample")
    name = f"busy-{os.getpid()}"
    training = ("train", "--run", "sample", "--detach", "--json", "--steps", "1000000")

    def start(*more: str) -> str:
        return json.loads(ask(*training, *more))["job_id"]

    job = start("--name", name)
    waiting = start("--name", f"{name}-next", "--after", job)
    try:
        time.sleep(5.0)  # it trains now
        yield
    finally:
        for one in (waiting, job):
            ask("jobs", "cancel", one)


if __name__ == "__main__":
    raise SystemExit(main())
