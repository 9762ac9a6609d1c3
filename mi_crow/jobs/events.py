"""events.jsonl: one JSON object per line, each appended in one write; readers skip bad lines."""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError
from mi_crow.jobs.field_types import has_valid_types
from mi_crow.store.json_file import parse_json
from mi_crow.store.plain_file import open_plain, read_plain

EVENTS_NAME = "events.jsonl"
CLOSING = frozenset({"finished", "failed", "cancelled"})
OPENING = frozenset({"queued", "resumed"})  # an attempt begins with one of these

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)
_SECRET_SHAPE = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_AT_ONCE = 16 << 20  # bytes


def append_event(job_dir: Path, event: str, **fields: Any) -> dict[str, Any]:
    """Appends one event with the current time and returns it."""
    record = {"t": time.time(), "event": event} | fields
    line = json.dumps(record, ensure_ascii=False, default=str, allow_nan=True) + "\n"
    descriptor = open_plain(job_dir / EVENTS_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode("utf-8", "replace"))
        if event in CLOSING or event in OPENING:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return record


def end_torn_line(job_dir: Path) -> None:
    """Ends a line that a killed writer left unfinished, so that the next event gets its own."""
    path = job_dir / EVENTS_NAME
    try:
        with os.fdopen(open_plain(path, os.O_RDWR), "rb+") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        return


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line, or None when the line is torn or not an event of ours."""
    try:
        record = parse_json(line, "an event")
    except CorruptDataError:
        return None
    if isinstance(record, dict) and "event" in record and has_valid_types(record):
        return record
    return None


def read_events(job_dir: Path) -> list[dict[str, Any]]:
    """All readable events, oldest first."""
    return list(EventReader(job_dir).read_new())


def read_last_events(job_dir: Path, window: int = 65536) -> list[dict[str, Any]]:
    """The readable events in the last `window` bytes, oldest first."""
    try:
        with read_plain(job_dir / EVENTS_NAME) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - window))
            data = file.read()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    if size > window:
        lines = lines[1:]  # its start was cut off
    return [event for line in lines if line and (event := parse_event(line))]


def count_attempts(job_dir: Path) -> int:
    """How often the job was submitted or resumed."""
    return sum(event["event"] in OPENING for event in read_events(job_dir))


@dataclass
class Attempt:
    """One attempt at a job, from its submission or resumption to its end."""

    number: int
    queued: float  # unix seconds, as all times here
    started: float | None = None
    ended: float | None = None
    status: str = "queued"  # queued | running | finished | failed | cancelled | lost
    host: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    error: str = ""


def add_event(attempts: list[Attempt], event: dict[str, Any]) -> None:
    """Takes up the next event of a job. What ended without a word before the next attempt is
    lost."""
    name, t = event["event"], float(event.get("t", 0.0))
    if name in OPENING:
        if attempts and attempts[-1].status not in CLOSING:
            attempts[-1].status = "lost"
        attempts.append(Attempt(len(attempts) + 1, t))
        return
    if not attempts:
        return
    last = attempts[-1]
    if name == "started":
        last.status, last.started, last.host = "running", t, str(event.get("host", ""))
    elif name == "progress":
        last.done, last.total = event.get("done", last.done), event.get("total", last.total)
        last.unit = event.get("unit", last.unit)
    elif name in CLOSING:
        last.status, last.ended, last.error = name, t, event.get("error") or ""


def attempts_of(events: Iterable[dict[str, Any]]) -> list[Attempt]:
    """The attempts at a job, oldest first."""
    attempts: list[Attempt] = []
    for event in events:
        add_event(attempts, event)
    return attempts


class EventReader:
    """Reads a growing events.jsonl: each call gives what was added since the last."""

    def __init__(self, job_dir: Path) -> None:
        self._path = job_dir / EVENTS_NAME
        self._offset = 0

    def read_new(self) -> Iterator[dict[str, Any]]:
        """The events whose lines were completed since the last call."""
        while True:
            try:
                with read_plain(self._path) as file:
                    file.seek(self._offset)
                    data = file.read(_AT_ONCE)
            except FileNotFoundError:
                return
            whole, newline, _ = data.rpartition(b"\n")
            full = len(data) == _AT_ONCE
            # No line of ours is that long: it is skipped.
            self._offset += len(data) if full and not newline else len(whole) + len(newline)
            for line in whole.split(b"\n"):
                if line and (event := parse_event(line)):
                    yield event
            if not full:
                return


def redact(text: str) -> str:
    """`text` without tokens and without the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _SECRET_SHAPE.sub("***", text)
