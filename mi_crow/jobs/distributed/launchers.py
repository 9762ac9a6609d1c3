"""Launchers: how many processes do a job's work, and what starts them."""

import os
from collections.abc import Mapping
from typing import Any

from mi_crow.errors import UserError
from mi_crow.jobs.distributed.slurm import check_slurm
from mi_crow.jobs.kinds import kind_of
from mi_crow.jobs.spec import LAUNCHERS
from mi_crow.ranks import check_shared_device


def check_hand_over(launcher: str, slurm: Mapping[str, Any]) -> None:
    """Raises UserError when the launcher is not available here."""
    if launcher == "slurm":
        check_slurm(slurm)
    elif slurm:
        raise UserError("--partition, --time and --slurm-arg need --launcher slurm")


def check_launcher(launcher: str, nproc: int, kind: str, device: str) -> None:
    """Raises UserError when a job of this kind cannot be started like this."""
    if launcher not in LAUNCHERS:
        raise UserError(f"launcher {launcher!r} is not known", hint=f"use {' or '.join(LAUNCHERS)}")
    if not isinstance(nproc, int) or isinstance(nproc, bool) or nproc < 1:
        raise UserError(f"nproc must be a whole number of at least 1, not {nproc!r}")
    if nproc > 1 and launcher == "local":
        raise UserError(
            f"{nproc} processes need a launcher", hint="add --launcher torchrun or slurm"
        )
    if launcher != "local":
        check_ranked(kind, nproc)
    check_shared_device(device, nproc)


def check_ranked(kind: str, nproc: int) -> None:
    """Raises UserError when the work of this kind cannot be shared by `nproc` processes."""
    if nproc > 1 and not kind_of(kind).ranked:
        raise UserError(
            f"{kind} runs in one process, {nproc} cannot share it",
            hint="leave out --launcher and --nproc",
        )


def launch_environment(nproc: int) -> dict[str, str]:
    """The environment of processes that share this machine: their share of its cores, unless the
    user has set it."""
    if os.environ.get("OMP_NUM_THREADS"):
        return {}
    return {"OMP_NUM_THREADS": str(max(1, _cores() // nproc))}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # may be fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
