"""Rows of a training's metrics for TensorBoard or Weights & Biases, beside our own files.

Both are optional packages and off by default. A logger that fails says so once and is switched
off: a training never stops or waits for it. API keys come from the packages' own login or the
environment and are never read, kept or written here.
"""

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.config import LOGGERS
from mi_crow.mechanistic.sae.train.metrics import Row

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
_WANDB_PROJECT = "mi-crow"
_WANDB_START_S = 20.0  # the longest wait for a server before the training begins


def check_logger(kind: str) -> None:
    """Raises UserError for a logger that is not known or whose package is missing."""
    if kind not in LOGGERS:
        raise UserError(f"logger {kind!r} is not known", hint=f"use {', '.join(LOGGERS)}")
    package = _PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        raise UserError(
            f"the logger {kind} needs a package that is missing",
            hint=f'pip install "mi-crow-tui[{kind}]"',
        )


class RunLogger:
    """Receives the rows of one training; this one keeps none."""

    def row(self, row: Row) -> None:
        """Receives the metrics of step `row["step"]`; None where not measured."""

    def close(self, *, failed: bool = False) -> None:
        """Ends the log; `failed` when the training ended before its last step."""


def open_logger(
    kind: str,
    folder: Path,
    settings: dict[str, Any],
    tell: Callable[[str], None],
) -> RunLogger:
    """The logger of the SAE that is trained in `folder`; `settings` are shown beside its rows and
    failures are reported to `tell`. A resumed training continues the same log.

    Raises UserError as `check_logger` does.
    """
    check_logger(kind)
    if kind == "none":
        return RunLogger()
    backend = _TensorBoard(folder) if kind == "tensorboard" else _WandB(folder, settings)
    return _Careful(kind, backend, tell)


class _Careful(RunLogger):
    """Another logger, until it fails."""

    def __init__(self, kind: str, backend: RunLogger, tell: Callable[[str], None]) -> None:
        self._kind, self._tell = kind, tell
        self._backend: RunLogger | None = backend

    def row(self, row: Row) -> None:
        self._try(lambda backend: backend.row(row))

    def close(self, *, failed: bool = False) -> None:
        self._try(lambda backend: backend.close(failed=failed))
        self._backend = None

    def _try(self, call: Callable[[RunLogger], None]) -> None:
        if self._backend is None:
            return
        try:
            call(self._backend)
        except Exception as error:  # whatever two large packages may raise
            self._backend = None
            reason = (str(error).splitlines() or [""])[0]
            self._tell(
                f"logging to {self._kind} stopped ({type(error).__name__}: {reason}); "
                "the training continues"
            )


class _TensorBoard(RunLogger):
    """Event files in `tensorboard` of the SAE's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def row(self, row: Row) -> None:
        step = int(row["step"] or 0)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Drops what a killed training wrote after its last checkpoint.
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in row.items():
            if value is not None and name != "step":
                self._writer.add_scalar(name, value, global_step=step)

    def close(self, *, failed: bool = False) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandB(RunLogger):
    """A run of the project `mi-crow` (or WANDB_PROJECT), with the SAE's name."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._run: Any = None

    def row(self, row: Row) -> None:
        if self._run is None:
            self._run = self._begin()
        values = {name: value for name, value in row.items() if value is not None}
        # W&B keeps a step that is already there, from before a kill.
        self._run.log(values, step=int(row["step"] or 0))

    def close(self, *, failed: bool = False) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))

    def _begin(self) -> Any:
        import wandb

        # One SAE is one run, also when its training resumes in another process.
        place = hashlib.sha256(str(self._folder.absolute()).encode()).hexdigest()[:8]
        asked = self._settings.get("training", self._settings)
        project = asked.get("wandb_project") or os.environ.get("WANDB_PROJECT", _WANDB_PROJECT)
        return wandb.init(
            project=project,
            entity=asked.get("wandb_entity"),
            mode=asked.get("wandb_mode"),
            tags=list(asked.get("wandb_tags") or ()) or None,
            name=asked.get("wandb_name") or self._folder.name,
            id=f"{self._folder.name}-{place}",
            resume="allow",
            dir=str(self._folder),
            config=self._settings,
            settings=wandb.Settings(
                console="off",
                save_code=False,
                disable_git=True,
                disable_code=True,
                init_timeout=_WANDB_START_S,
                silent=True,
            ),
        )
