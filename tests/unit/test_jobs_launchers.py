"""Which launcher a job may have, and what the processes it starts find."""

import os
from typing import Any

import pytest

from mi_crow.errors import UserError
from mi_crow.jobs import submit
from mi_crow.jobs.distributed.launchers import check_launcher, launch_environment
from mi_crow.language_model.placement import packages
from mi_crow.store.workspace import Workspace

CAPTURE = {
    "model": {"model": "sample"},
    "dataset": {"source": "sample"},
    "layers": ["resid_post.2"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "nproc", "kind", "device", "says"),
    [
        ("slrum", 1, "capture", "auto", "launcher 'slrum' is not known"),
        ("local", 2, "capture", "auto", "2 processes need a launcher"),
        ("torchrun", 0, "capture", "auto", "nproc must be a whole number of at least 1, not 0"),
        ("torchrun", "2", "capture", "auto", "nproc must be a whole number"),
        ("torchrun", True, "capture", "auto", "nproc must be a whole number"),
        ("torchrun", 2, "vector", "auto", "vector runs in one process, 2 cannot share it"),
        ("torchrun", 2, "demo", "auto", "demo runs in one process"),
        ("torchrun", 2, "capture", "cuda:1", "2 processes cannot share the device 'cuda:1'"),
        ("torchrun", 2, "capture", "mps", "2 processes cannot share the device 'mps'"),
    ],
)
def test_a_launcher_that_cannot_work_is_refused(
    launcher: str, nproc: int, kind: str, device: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_launcher(launcher, nproc, kind, device)


@pytest.mark.parametrize(
    ("launcher", "nproc", "kind", "device"),
    [
        ("local", 1, "index", "mps"),
        ("torchrun", 1, "capture", "cuda:1"),
        ("torchrun", 2, "capture", "cuda"),
        ("torchrun", 8, "capture", "auto"),
        ("torchrun", 2, "evaluate", "cuda"),
        ("slurm", 2, "explain", "cpu"),
    ],
)
def test_what_can_work_is_let_through(launcher: str, nproc: int, kind: str, device: str) -> None:
    check_launcher(launcher, nproc, kind, device)


def test_a_refused_launcher_leaves_nothing_behind(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="cannot share it"):
        submit(workspace, "demo", {}, launcher="torchrun", nproc=2)
    params = CAPTURE | {"model": {"model": "sample", "device": "mps"}}
    with pytest.raises(UserError, match="cannot share the device 'mps'"):
        submit(workspace, "capture", params, launcher="torchrun", nproc=2)
    assert not workspace.jobs_dir.exists()


@pytest.mark.parametrize(
    ("model", "split", "nproc", "says"),
    [
        ({"dtype": "8bit"}, False, 1, "in 8bit without the package"),
        ({"device": "spread"}, False, 1, "needs the package accelerate"),
        ({"dtype": "4bit", "gguf_file": "x.gguf"}, False, 1, "it is a GGUF file"),
        ({}, True, 1, "splits a model over several processes"),
        ({"dtype": "8bit"}, True, 2, "cannot be split over 2 processes: it is quantized"),
        ({}, True, 2, "over 2 processes without the package accelerate"),
    ],
)
def test_a_model_that_cannot_be_loaded_so_is_refused_before_a_job_waits(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, str],
    split: bool,
    nproc: int,
    says: str,
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    params = CAPTURE | {"model": {"model": "sample", **model}, "tensor_parallel": split}
    launcher = "torchrun" if nproc > 1 else "local"
    with pytest.raises(UserError, match=says) as caught:
        submit(workspace, "capture", params, launcher=launcher, nproc=nproc)
    assert caught.value.hint
    assert not workspace.jobs_dir.exists()


@pytest.mark.parametrize(
    ("settings", "nproc", "says"),
    [
        ({"training": {"batch_size": 3}}, 4, "a batch of 3 tokens cannot be split into 4 pieces"),
        ({"shares": "latents", "n_latents": 3, "k": 2}, 4, "3 latents cannot be split among 4"),
        ({"shares": "latents", "copies": 3}, 4, "4 processes cannot share the latents of 3"),
        ({"training": {"whiten": True}}, 2, "whitened trainings run in one process"),
        ({"shares": "latents", "copies": 2}, 1, "1 process cannot share the latents of 2"),
    ],
)
def test_a_training_that_so_many_processes_cannot_share_is_refused_before_a_job_waits(
    workspace: Workspace, settings: dict[str, Any], nproc: int, says: str
) -> None:
    params = {"run_id": "run", "layer": "resid_post.2", **settings}
    launcher = "torchrun" if nproc > 1 else "local"
    with pytest.raises(UserError, match=says) as caught:
        submit(workspace, "train", params, launcher=launcher, nproc=nproc)
    assert caught.value.hint
    assert not workspace.jobs_dir.exists()


def test_each_process_gets_its_part_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert launch_environment(4) == {"OMP_NUM_THREADS": "3"}
    assert launch_environment(100) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's own wish
    assert launch_environment(4) == {}
