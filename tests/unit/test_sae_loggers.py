"""Loggers: what they write, what a resume does to it, and what happens when they fail."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.train import loggers
from mi_crow.mechanistic.sae.train.loggers import RunLogger, check_logger, open_logger

ROWS: list[dict[str, Any]] = [
    {"step": step, "fvu": 1 / step, "heldout_fvu": 0.5 if step == 20 else None}
    for step in (1, 10, 20)
]


def complain(message: str) -> None:
    raise AssertionError(message)


def write(kind: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    logger = open_logger(kind, folder, {"k": 16}, complain)
    for row in rows:
        logger.row(row)
    logger.close()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_none_writes_nothing(tmp_path: Path) -> None:
    write("none", tmp_path, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_every_value_at_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path, ROWS)
    assert scalars(tmp_path, "fvu") == [
        (1, 1.0),
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.05)),
    ]
    assert scalars(tmp_path, "heldout_fvu") == [(20, 0.5)]


def test_tensorboard_forgets_what_a_resume_does_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write("tensorboard", tmp_path, ROWS)
    write("tensorboard", tmp_path, [{"step": 10, "fvu": 0.25}, {"step": 20, "fvu": 0.125}])
    assert scalars(tmp_path, "fvu") == [(1, 1.0), (10, 0.25), (20, 0.125)]


@pytest.mark.slow
def test_wandb_keeps_rows_and_never_the_key(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    key = "0123456789abcdef" * 2 + "01234567"
    home = tmp_path / "home"
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB")},
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": key,
        "HOME": str(home),
        "WANDB_CACHE_DIR": str(home),
        "WANDB_CONFIG_DIR": str(home),
        "WANDB_DATA_DIR": str(home),
    }
    program = (
        "import sys; from pathlib import Path; from tests.unit import test_sae_loggers as t; "
        "t.write('wandb', Path(sys.argv[1]), t.ROWS)"
    )
    folder = tmp_path / "my-sae"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (run,) = folder.rglob("*.wandb")
    assert b"heldout_fvu" in run.read_bytes()
    assert run.name.startswith("run-my-sae-")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if key.encode() in path.read_bytes()] == []
    assert key not in done.stdout + done.stderr


@pytest.mark.parametrize("fails", ["row", "close"])
def test_a_logger_that_fails_is_heard_of_once(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Broken(RunLogger):
        def __init__(self, _: Path) -> None:
            pass

        def row(self, row: dict[str, Any]) -> None:
            taken.append(row["step"])
            if fails == "row":
                raise ConnectionError("the network\nis gone")

        def close(self, *, failed: bool = False) -> None:
            raise OSError("no space left")

    monkeypatch.setattr(loggers, "_TensorBoard", Broken)
    monkeypatch.setattr(loggers, "find_spec", lambda _: object())
    heard: list[str] = []
    logger = open_logger("tensorboard", tmp_path, {}, heard.append)
    for row in ROWS:
        logger.row(row)
    logger.close()
    assert taken == ([1] if fails == "row" else [1, 10, 20])
    (words,) = heard
    reason = "ConnectionError: the network" if fails == "row" else "OSError: no space left"
    assert words == f"logging to tensorboard stopped ({reason}); the training continues"


def absent(_: str) -> None:
    return None


@pytest.mark.parametrize(
    ("kind", "find", "words", "hint"),
    [
        ("mlflow", absent, "logger 'mlflow' is not known", "none, tensorboard, wandb"),
        ("wandb", absent, "needs a package that is missing", 'pip install "mi-crow-tui[wandb]"'),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    kind: str,
    find: Callable[[str], None],
    words: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loggers, "find_spec", find)
    with pytest.raises(UserError, match=words) as caught:
        check_logger(kind)
    assert hint in caught.value.hint
