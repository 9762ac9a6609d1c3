"""The queue for a device: one job at a time, oldest first, across all workspaces of the user.

Each device has a folder with a `lock` held by the running job, and a ticket per waiting job. A
ticket is itself locked by its owner, so one whose lock is free was left by a dead process.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mi_crow.errors import MiCrowError
from mi_crow.jobs.process import is_locked, take_lock
from mi_crow.store.json_file import parse_json
from mi_crow.store.json_object import JsonObject
from mi_crow.store.plain_file import read_plain
from mi_crow.store.runtime_folder import known_runtime_folders, runtime_folder
from mi_crow.store.settings import SPREAD
from mi_crow.visible import visible

_FOLDER_PREFIX = "device-"
_TICKET_PREFIX = "ticket-"
_MOST_WORDS = 8192  # bytes that a lock says of its holder


def device_key(device: str) -> str:
    """The real device that `device` means here, as a file name, without torch.

    `auto` and `spread` are the first GPU that torch calls cuda, else mps on Apple silicon, else the
    CPU.
    """
    name = device.lower()
    if name in ("auto", SPREAD):
        if _visible_gpus() != [] and _has_gpu():
            name = "cuda:0"
        elif sys.platform == "darwin" and os.uname().machine == "arm64":
            name = "mps"
        else:
            name = "cpu"
    kind, _, index = name.partition(":")
    if kind != "cuda":
        return kind
    number = int(index) if index.isdigit() else 0
    visible = _visible_gpus()
    if visible and number < len(visible):
        return f"cuda-{visible[number]}"
    return f"cuda-{number}"


def devices_of(device: str, nproc: int) -> list[str]:
    """The devices that a job of `nproc` processes runs on: a GPU each, or the one CPU for all."""
    if device == SPREAD and device_key(device).startswith("cuda"):
        visible = _visible_gpus()
        count = len(visible) if visible else len(list(Path("/dev").glob("nvidia[0-9]*")))
        return [f"cuda:{number}" for number in range(max(1, count))]
    if nproc == 1:
        return [device]
    if device_key(device).startswith("cuda"):
        return [f"cuda:{number}" for number in range(nproc)]
    return ["cpu"]


def _has_gpu() -> bool:
    """True when the system has an NVIDIA (also under WSL) or AMD GPU."""
    devices = Path("/dev")
    return (
        any(devices.glob("nvidia[0-9]*"))
        or (devices / "dxg").exists()
        or (devices / "kfd").exists()
    )


def _visible_gpus() -> list[str] | None:
    """The devices in CUDA_VISIBLE_DEVICES, or None when it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = [part.strip().replace("/", "-") for part in value.split(",")]
    return [name for name in names if name and name != "-1"]


def queue_folder(device: str) -> Path:
    """The folder of the device's queue; made if missing. Raises as `runtime_folder`."""
    folder = runtime_folder() / f"{_FOLDER_PREFIX}{device_key(device)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@dataclass(frozen=True)
class QueueLook:
    """Who has a device, and the jobs that wait for it, oldest first."""

    device: str  # as `device_key` names it
    job: str
    workspace: str
    waiting: tuple[str, ...]


def look_at_queues() -> list[QueueLook]:
    """The devices that a job of this user has or waits for, in any workspace. Changes nothing."""
    looks = []
    for base in known_runtime_folders():
        try:
            looks += [_look(folder) for folder in sorted(base.glob(f"{_FOLDER_PREFIX}*"))]
        except OSError:  # another user's meanwhile
            continue
    return [look for look in looks if look.job or look.waiting]


def _look(folder: Path) -> QueueLook:
    place = _Place(folder, "", "")
    tickets = sorted(path.name for path in folder.glob(f"{_TICKET_PREFIX}*") if is_locked(path))
    jobs = tuple(visible(name.removeprefix(_TICKET_PREFIX).split("-", 2)[-1]) for name in tickets)
    device = folder.name.removeprefix(_FOLDER_PREFIX)
    job, workspace = place.holder()
    return QueueLook(device, job, workspace, tuple(dict.fromkeys(jobs)))


class DeviceQueue:
    """One job's place in the queues of its devices: it runs when it can have all of them.

    While it waits it holds no device, only its tickets. So the oldest job only waits for running
    ones, and those wait for nobody.
    """

    def __init__(
        self, devices: Sequence[str], created: float, job_id: str, workspace: Path | None = None
    ) -> None:
        self._workspace = str(workspace or "")
        # Sorted names are the order of the queue: by creation, then by something unique.
        name = f"{_TICKET_PREFIX}{int(created * 1e6):020d}-{os.getpid()}-{job_id}"
        folders = dict.fromkeys(queue_folder(device) for device in devices)
        words = json.dumps({"job": job_id, "workspace": self._workspace})
        self._places = [_Place(folder, name, words) for folder in folders]

    def join(self) -> None:
        """Takes a ticket."""
        for place in self._places:
            place.join()

    def try_enter(self) -> bool:
        """Takes the devices when no older job waits for one and no job runs on one."""
        if not all(place.try_enter() for place in self._places):
            for place in self._places:
                place.step_back()
            return False
        for place in self._places:
            place.drop_ticket()
        return True

    def ahead(self) -> int:
        """The number of older jobs waiting."""
        return len({name for place in self._places for name in place.ahead()})

    def holder(self) -> str:
        """The job that has a device now, and its workspace where that is another one; empty when
        nobody knows."""
        for place in self._places:
            job, workspace = place.holder()
            if job:
                return job if workspace == self._workspace else f"{job} in workspace {workspace}"
        return ""

    def leave(self) -> None:
        """Releases the tickets and the devices."""
        for place in self._places:
            place.drop_ticket()
            place.step_back()


class _Place:
    """One job's place in the queue of one device."""

    def __init__(self, folder: Path, name: str, words: str) -> None:
        self._folder, self._name = folder, name
        self._words = words  # who we are, for those who wait while we hold the device
        self._ticket: int | None = None
        self._lock: int | None = None

    def join(self) -> None:
        hidden = self._folder / f".tmp-{self._name}"
        self._ticket = take_lock(hidden)
        os.rename(hidden, self._folder / self._name)

    def try_enter(self) -> bool:
        if self._lock is None and not self.ahead():
            self._lock = take_lock(self._folder / "lock", patience_s=0)
            if self._lock is not None:
                with contextlib.suppress(OSError):  # only a courtesy to those who wait
                    os.ftruncate(self._lock, 0)
                    os.pwrite(self._lock, self._words.encode("utf-8", "surrogateescape"), 0)
        return self._lock is not None

    def holder(self) -> tuple[str, str]:
        """The job and the workspace of whoever holds the device; empty where that is unknown."""
        path = self._folder / "lock"
        try:
            if not is_locked(path):
                return "", ""
            with read_plain(path) as file:
                found = JsonObject.of(parse_json(file.read(_MOST_WORDS), "a lock"), "a lock")
            job, workspace = found.text("job", ""), found.text("workspace", "")
        except (MiCrowError, OSError):
            return "", ""
        return visible(job or ""), visible(workspace or "")

    def step_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def drop_ticket(self) -> None:
        if self._ticket is not None:
            (self._folder / self._name).unlink(missing_ok=True)
            os.close(self._ticket)
            self._ticket = None

    def ahead(self) -> set[str]:
        return {name for name in self._waiting() if name < self._name}

    def _waiting(self) -> Iterator[str]:
        for path in self._folder.glob(f"{_TICKET_PREFIX}*"):
            if path.name == self._name or is_locked(path):
                yield path.name
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
