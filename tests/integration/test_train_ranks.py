"""Two processes train what one would, whether they share tokens or latents."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.jobs import follow, job_state, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.config import ARCHITECTURES, SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.parallel.settings import SHARES
from mi_crow.mechanistic.sae.sharing import LatentSharing
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.store.workspace import Workspace
from tests.helpers.shared_training import LATENTS, Trained, train, train_shared

pytestmark = pytest.mark.slow

# Batches that do not halve evenly and leave some latents dead for AuxK at every step.
SMALL = {"batch_size": 31, "dead_tokens": 20}
CASES = [
    {"arch": arch, "shares": shares, "double": True, "fields": {**SMALL, "steps": 20}}
    for arch in ARCHITECTURES
    for shares in SHARES
]
NAMES = [f"{case['arch']}-{case['shares']}" for case in CASES]
PIECES = {"arch": "topk", "double": True, "fields": {**SMALL, "steps": 20, "accumulate": 3}}
LONG = [
    {"arch": "topk", "shares": shares, "fields": {"batch_size": 128, "steps": 200}}
    for shares in SHARES
]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[list[Trained]]:
    """What two processes make of every case, each rank's own."""
    return train_shared(tmp_path_factory.mktemp("together"), [*CASES, PIECES, *LONG])


def alone(case: dict[str, Any]) -> Trained:
    return train(**{name: value for name, value in case.items() if name != "shares"})


def furthest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_two_processes_come_to_the_weights_of_one(
    number: int, together: list[list[Trained]]
) -> None:
    weights, history = alone(CASES[number])
    for found, told in together[number]:
        assert furthest(found, weights) <= 1e-5
        assert told["loss"] == pytest.approx(history["loss"], rel=1e-9)
        for name in ("l0", "dead_features", "fvu", "heldout_fvu"):
            assert told[name] == pytest.approx(history[name], rel=1e-9), name
    assert max(history["dead_features"]) > 0  # AuxK had something to do


def test_training_moves_the_weights_much_further_than_they_may_differ() -> None:
    short, _ = train("topk", {**SMALL, "steps": 1}, double=True)
    long, _ = train("topk", {**SMALL, "steps": 20}, double=True)
    assert furthest(short, long) > 1e-3


def test_batches_in_pieces_are_shared_as_well(together: list[list[Trained]]) -> None:
    weights, _ = alone(PIECES)
    assert furthest(together[len(CASES)][1][0], weights) <= 1e-5


@pytest.mark.parametrize("number", range(len(LONG)), ids=SHARES)
def test_the_loss_stays_that_of_one_process_for_long(
    number: int, together: list[list[Trained]]
) -> None:
    _, history = alone(LONG[number])
    for _, told in together[len(CASES) + 1 + number]:
        assert told["loss"][-1] == pytest.approx(history["loss"][-1], rel=1e-4)


@pytest.mark.parametrize("shares", SHARES)
def test_a_training_goes_on_with_another_number_of_processes(shares: str, tmp_path: Path) -> None:
    case = {"arch": "topk", "double": True, "fields": {**SMALL, "steps": 20}}
    kept = {**case, "folder": str(tmp_path / "sae")}
    stopped = train_shared(tmp_path, [{**kept, "shares": shares, "stop_at": 10}])
    weights, history = stopped[0][0]
    assert (weights, set(history)) == ({}, {"counts"})  # nothing was finished
    (checkpoint,) = (tmp_path / "sae" / "checkpoints").iterdir()
    assert 10 <= int(checkpoint.name.removeprefix("step-")) < 20
    weights, _ = alone(case)
    assert furthest(alone(kept)[0], weights) <= 1e-5


def test_more_processes_than_latents_are_refused() -> None:
    class Many:
        rank, world = 0, LATENTS + 1

    with pytest.raises(UserError, match="67 latents cannot be split among 68 processes"):
        LatentSharing(Many(), torch.device("cpu"), LATENTS)  # pyright: ignore[reportArgumentType]


CAPTURE = CaptureConfig(
    ModelSpec("sample", dtype="fp32", device="cpu"),
    DatasetSpec("sample", limit=60),
    ("resid_post.2",),
    dtype="fp32",
)
SETTINGS = SaeTrainingConfig(steps=12, batch_size=256, checkpoint_every=4)


@pytest.fixture
def run_id(workspace: Workspace) -> str:
    return capture_run(workspace, CAPTURE).run_id


@pytest.mark.parametrize("shares", SHARES)
def test_a_job_trains_in_two_processes(workspace: Workspace, run_id: str, shares: str) -> None:
    config = TrainConfig(
        run_id, "resid_post.2", n_latents=128, k=8, training=SETTINGS, device="cpu", shares=shares
    )
    wanted = train_run(workspace, config)
    job = submit(workspace, "train", config_as_json(config), launcher="torchrun", nproc=2)
    for _ in follow(workspace, job):
        pass
    state = job_state(workspace, job)
    assert state.status == "finished", state.error
    assert state.result is not None
    assert state.result["fvu"] == pytest.approx(wanted.fvu, rel=1e-4)
    folder = workspace.sae_dir(state.result["sae_id"])
    sae, other = load_sae(folder), load_sae(workspace.sae_dir(wanted.sae_id))
    assert furthest(sae.state_dict(), other.state_dict()) < 1e-4
    assert (folder / "metrics.parquet").is_file()
    assert not (folder / "checkpoints").exists()


def test_a_stream_is_shared_by_its_texts(workspace: Workspace) -> None:
    command = [
        *(sys.executable, "-m", "mi_crow", "--workspace", str(workspace.root)),
        *("train", "--stream"),
        *("--model", "sample", "--dataset", "sample", "--limit", "60", "--layer", "resid_post.2"),
        *("--n-latents", "128", "--k", "8", "--steps", "20", "--batch-size", "256"),
        *("--device", "cpu", "--launcher", "torchrun", "--nproc", "2", "--json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=240)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["fvu"] < 1
