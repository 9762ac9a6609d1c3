"""The folder through which a job's process and its ranks communicate: only JSON files.

The job's process creates it. Rank 0 appends its reports; each rank leaves one file with how it
ended; torchrun's process leaves one with the dead ranks; the file `stop` asks all to stop.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.json_file import parse_json

_STOP, _REPORTS, _DEATHS = "stop", "reports.jsonl", "deaths.json"


@dataclass(frozen=True)
class Ending:
    """How one rank ended, as it reports itself."""

    outcome: str  # finished | failed | cancelled
    t: float  # unix seconds
    result: dict[str, Any] | None = None  # rank 0's, when it finished
    error: str = ""
    hint: str = ""
    exit_code: int = 0
    traceback: str = ""
    cause: str = ""  # of a failure: known (an error of ours) | crashed | lost (a rank was gone)
    resumable: bool = True  # of a cancelled one


@dataclass(frozen=True)
class Death:
    """A rank that did not end well, as torchrun saw it."""

    rank: int
    exit_code: int  # below zero: minus the signal that killed it
    t: float  # unix seconds


class Exchange:
    """Both sides' access to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0

    def ask_stop(self) -> None:
        (self._folder / _STOP).touch()

    def stop_asked(self) -> bool:
        return (self._folder / _STOP).exists()

    def report(self, call: str, **fields: Any) -> None:
        """Appends one call of rank 0's Progress, in one write."""
        line = json.dumps({"call": call} | fields, ensure_ascii=False, default=str) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._folder / _REPORTS, flags, 0o600)
        try:
            os.write(descriptor, line.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    def new_reports(self) -> Iterator[dict[str, Any]]:
        """The calls appended since the last look."""
        try:
            with (self._folder / _REPORTS).open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole, newline, _ = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.split(b"\n"):
            if line:
                yield parse_json(line, "a report of rank 0")

    def end(self, rank: int, outcome: str, **fields: Any) -> None:
        """Records how rank `rank` ended."""
        ending = {"outcome": outcome, "t": time.time()} | fields
        write_json(self._folder / f"rank-{rank}.json", ending)

    def endings(self, world: int) -> dict[int, Ending]:
        """The ranks that recorded how they ended."""
        found = ((rank, self._read(f"rank-{rank}.json")) for rank in range(world))
        return {rank: Ending(**word) for rank, word in found if word is not None}

    def leave_deaths(self, deaths: list[dict[str, Any]]) -> None:
        write_json(self._folder / _DEATHS, deaths)

    def deaths(self) -> list[Death]:
        """The ranks that torchrun found dead, the first one first."""
        return [Death(**death) for death in self._read(_DEATHS) or []]

    def _read(self, name: str) -> Any:
        try:
            return read_json(self._folder / name)
        except MiCrowError:
            return None  # not written: its writer died
