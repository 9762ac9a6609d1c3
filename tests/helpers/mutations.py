"""Seeded damage to files: what a crash, a bad disk, another tool or somebody hostile leaves."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, -1e308, float("nan"), float("inf"), 10**400, 2**64, "", "x",
    "\x1b]52;c;aGk=\x07", "../../x", "a" * 5000, [], [1], [[]], {}, {"a": 1}, "\ud800", "\x00",
)  # fmt: skip
_HUGE = 300 << 20  # bytes of a file with a hole: it takes no room


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def insert_garbage(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.randbytes(dice.randint(1, 64)) + data[at:]


def repeat_part(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at : at + dice.randint(1, 200)] * dice.randint(2, 5) + data[at:]


def zero_part(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    size = min(dice.randint(1, 512), len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    truncate,
    insert_garbage,
    repeat_part,
    zero_part,
)


def odd_json(data: bytes, dice: random.Random) -> bytes:
    """One JSON object a line or one in all, with one value of it replaced, removed or added."""
    try:
        whole = [json.loads(data)]
    except ValueError:
        whole = [json.loads(line) for line in data.splitlines() if line.strip()]
    chosen = dice.randrange(len(whole)) if whole else 0
    if whole:
        whole[chosen] = _changed(whole[chosen], dice)
    return "\n".join(json.dumps(one) for one in whole).encode() + b"\n"


def _changed(value: Any, dice: random.Random) -> Any:
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    if not keys or dice.random() < 0.1:
        return dice.choice(ODD_VALUES)
    key = dice.choice(keys)
    way = dice.random()
    if way < 0.15 and isinstance(value, dict):
        return {name: one for name, one in value.items() if name != key}
    if way < 0.25 and isinstance(value, dict):
        return value | {dice.choice(("", "extra", "event", "t")): dice.choice(ODD_VALUES)}
    inner = value[key]
    deeper = isinstance(inner, dict | list) and dice.random() < 0.5
    new = _changed(inner, dice) if deeper else dice.choice(ODD_VALUES)
    if isinstance(value, dict):
        return value | {key: new}
    return [*value[:key], new, *value[key + 1 :]]


def odd_file(path: Path, dice: random.Random) -> None:
    """Puts something that is no plain file of ours in the place of `path`, or takes it away."""
    path.unlink(missing_ok=True)
    kind = dice.choice(
        ("missing", "folder", "loop", "dangling", "device", "pipe", "empty", "huge", "deep")
    )
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(_HUGE)
    elif kind == "deep":
        path.write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


def put_back(folder: Path, good: Path) -> None:
    """Makes `folder` a copy of `good`."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(good, folder)
