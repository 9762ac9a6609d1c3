"""The worker's side of a job's folder: a Progress that writes events and status, and a watcher.

The watcher thread checks the cancel file once a second, writes the heartbeat, and ends the process
immediately on a second request, however busy the main thread is.
"""

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mi_crow.causes import explained, sentence_of
from mi_crow.errors import MiCrowError
from mi_crow.jobs.events import append_event, redact
from mi_crow.jobs.process import ProcessIdentity
from mi_crow.jobs.rate import SILENT_S, Forecast
from mi_crow.jobs.status import CANCEL_NAME, HEARTBEAT_S, write_status
from mi_crow.memory import READINGS, memory_readings
from mi_crow.store.atomic import temporary_name
from mi_crow.store.plain_file import read_plain

_TICK_S = 1.0
_FIRST_MINUTE_S = 60.0
_EARLY_GAP_S = 0.2  # five events per second in the first minute
_LATE_GAP_S = 2.0
_MOST_REQUESTS = 4096  # bytes read of the cancel file
EXIT_STOPPED = 130
# Bytes reserved on the disk for the closing event: what a full disk can no longer take is
# often the very file that would say so.
_RESERVED = 64 << 10


@contextlib.contextmanager
def _logged_on_failure(what: str) -> Iterator[None]:
    """The end of a job is written to two files and the log: if one fails, the others still say
    how it ended."""
    try:
        yield
    except (MiCrowError, OSError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"the job's {what} cannot be written: {sentence_of(error)}\n")


def update_gap(age_s: float) -> float:
    """The minimum seconds between two progress events of work that started `age_s` ago."""
    return _EARLY_GAP_S if age_s < _FIRST_MINUTE_S else _LATE_GAP_S


class Reporter:
    """What the work calls while it runs, and the end of the job.

    `stage_in` gives the stage, in words, that begins with a line of the log: "" for the
    main work, None where none begins.
    """

    def __init__(
        self, job_dir: Path, attempt: int, stage_in: Callable[[str], str | None] | None = None
    ) -> None:
        self._job_dir = job_dir
        self._me = ProcessIdentity.mine()
        self._status: dict[str, Any] = {
            "status": "queued",
            "attempt": attempt,
            "process": self._me.as_json(),
        }
        self._attempt, self._stage_in = attempt, stage_in
        self._forecast = Forecast()
        self._reading: dict[str, Any] | None = None  # the latest progress, not yet an event
        self._memory: dict[str, float] = {}  # as of the latest progress event
        self._last_event = 0.0
        self._started = time.monotonic()
        self._signals = 0
        self._stop = False
        # A pipe wakes the watcher: events and locks are not safe inside a signal handler.
        self._wake_reader, self._wake_writer = os.pipe()
        self._lock = threading.RLock()
        self._dirty = True
        self._closed = False
        self._reserve = temporary_name(job_dir / "room")
        self._watcher = threading.Thread(target=self._watch, name="job-watcher", daemon=True)

    def __enter__(self) -> "Reporter":
        self._write_status()
        with contextlib.suppress(OSError):  # the disk is already full: the work will say so
            self._reserve.write_bytes(bytes(_RESERVED))
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
        self._reserve.unlink(missing_ok=True)
        self._wake()
        self._watcher.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    # What the work calls (mi_crow.progress.Progress).

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        now = time.monotonic()
        readings = {key: float(value) for key, value in (metrics or {}).items()}
        with self._lock:
            rate, left = self._forecast.add(now, done, total, unit)
            due = now - self._last_event >= update_gap(now - self._started)
            if due and readings.keys().isdisjoint(READINGS):  # else a rank has told its own
                self._memory = memory_readings()
            self._reading = {
                "done": int(done),
                "total": int(total),
                "unit": unit,
                "rate": rate,
                "eta_s": left,
                "metrics": readings | self._memory,
            }
            self._status.update(self._reading)
            self._dirty = True
            if due:
                self._flush_reading(now)

    def log(self, message: str) -> None:
        text = redact(message)
        stage = self._stage_in(text) if self._stage_in is not None else None
        append_event(
            self._job_dir, "log", message=text, **({} if stage is None else {"stage": stage})
        )
        self._write(text)
        if stage is not None:
            self._set(stage=stage)

    def _write(self, line: str) -> None:
        """A line that goes to the log only, so that a log just opened is not empty."""
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def checkpoint(self, name: str) -> None:
        append_event(self._job_dir, "checkpoint", name=name)

    def should_stop(self) -> bool:
        return self._stop

    # What the runner calls.

    def request_stop(self) -> None:
        """One request saves and stops, a second one stops immediately. Safe in a signal handler."""
        self._signals += 1
        self._stop = True
        self._wake()

    def request_stop_once(self) -> None:
        """Like `request_stop`, but repeating it changes nothing: Slurm may signal the time limit
        several times while the work is being saved. Safe in a signal handler."""
        self._signals = max(self._signals, 1)
        self._stop = True
        self._wake()

    def wait_for_stop(self, seconds: float) -> bool:
        """Waits `seconds`; true when asked to stop."""
        time.sleep(seconds)
        return self._stop

    def waiting(self, what: str) -> None:
        """Records what a queued job is waiting for."""
        if self._status.get("waiting_for") != what:
            self._set(waiting_for=what)
            self._write(f"waits for {what}")

    def output(self, output_id: str) -> None:
        """Records which run or SAE the job makes."""
        self._set(output=output_id)

    def started(self) -> None:
        event = append_event(self._job_dir, "started", **self._me.as_json(), attempt=self._attempt)
        self._started = time.monotonic()
        self._set(status="running", started=event["t"], waiting_for="")
        self._write("begins")

    def finished(self, result: dict[str, Any]) -> None:
        self._close("finished", {"result": result}, resumable=False)

    def cancelled(self, *, resumable: bool, why: str = "") -> None:
        """`why` says what ended the job, if it was not its user."""
        fields = {"resumable": resumable} | ({"error": why} if why else {})
        self._close("cancelled", fields, resumable=resumable)

    def failed(self, error: BaseException, traceback: str, exit_code: int) -> None:
        """The log gets the sentence, the closing event the traceback as well, which
        `mi-crow jobs log --debug` prints."""
        known = explained(error)
        sentence = redact(str(known) or type(known).__name__)
        hint = redact(getattr(known, "hint", ""))
        if not isinstance(known, MiCrowError | OSError):
            shows = f"`mi-crow jobs log {self._job_dir.name} --debug` shows the traceback"
            hint = f"this is a bug in mi-crow; {shows}"
        fields = {"error": sentence, "hint": hint, "exit_code": exit_code}
        # First the end itself, which has room kept for it: a full disk may not take the log.
        self._close("failed", fields, resumable=True, traceback=redact(traceback))
        told = f"failed: {sentence}" + (f"; {hint}" if hint else "")
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {told}\n")

    def _close(
        self, event: str, fields: dict[str, Any], *, resumable: bool, **only_event: Any
    ) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._reserve.unlink(missing_ok=True)
            with _logged_on_failure("events"):
                self._flush_reading(time.monotonic())
            with _logged_on_failure("events"):
                append_event(self._job_dir, event, **fields, **only_event)
            self._status.update(fields, status=event, ended=time.time(), resumable=resumable)
            self._status.update(rate=None, eta_s=None, stage="", waiting_for="")
            with _logged_on_failure("status"):
                self._write_status()

    def _set(self, **fields: Any) -> None:
        with self._lock:
            self._status.update(fields)
            self._write_status()

    def _flush_reading(self, now: float) -> None:
        if self._reading is not None:
            append_event(self._job_dir, "progress", **self._reading)
            self._reading, self._last_event = None, now

    def _write_status(self) -> None:
        self._dirty = False
        self._status["heartbeat"] = time.time()
        write_status(self._job_dir, self._status | self._time_left())

    def _time_left(self) -> dict[str, float | None]:
        """That of the latest progress, counted down while the work says nothing."""
        told = self._status.get("eta_s") is not None
        return {"eta_s": self._forecast.left(time.monotonic())} if told else {}

    def _wake(self) -> None:
        os.write(self._wake_writer, b"x")

    def _watch(self) -> None:
        beat = time.monotonic()
        while True:
            if select.select([self._wake_reader], [], [], _TICK_S)[0]:
                os.read(self._wake_reader, 64)
            asked = max(self._signals, self._cancel_requests())
            if asked:
                self._stop = True
            with self._lock:
                if self._closed:
                    return
                if asked >= 2:
                    self._close("cancelled", {"resumable": True}, resumable=True)
                    os._exit(EXIT_STOPPED)
                silent = time.monotonic() - beat
                counts_down = self._status.get("eta_s") and silent >= SILENT_S
                if self._dirty or counts_down or silent >= HEARTBEAT_S:
                    beat = time.monotonic()
                    with _logged_on_failure("status"):  # a disk that is full for a while
                        self._write_status()

    def _cancel_requests(self) -> int:
        """The number of cancel requests: each is one line of the file."""
        try:
            with read_plain(self._job_dir / CANCEL_NAME) as file:
                return max(1, file.read(_MOST_REQUESTS).count(b"\n"))
        except FileNotFoundError:
            return 0
        except (MiCrowError, OSError):  # something else is in its place
            return 1
