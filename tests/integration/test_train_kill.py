"""kill -9 in the middle of a training that writes checkpoints all the time: it goes on from a
whole one, to exactly the SAE of a training that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

KILLS = 3
WAIT_S = 120.0
WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from mi_crow.mechanistic.sae import SaeTrainer, SaeTrainingConfig, TopKSae
from mi_crow.mechanistic.sae.source import TensorSource
torch.set_num_threads(1)
tokens = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
sae = TopKSae(4096, 64, 8)
config = SaeTrainingConfig(
    steps=120, batch_size=128, dead_tokens=2000, log_every=2, checkpoint_minutes=1e-6
)
folder = Path(sys.argv[1])
SaeTrainer(sae).train_on(TensorSource(tokens), config, folder=folder)
save_file(sae.state_dict(), folder / "trained.safetensors")
"""


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that trains in the folder, or goes on there."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def newest(folder: Path) -> int:
    """The step of the newest checkpoint."""
    names = [entry.name for entry in (folder / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def kill_in_the_middle(folder: Path, moment: random.Random) -> None:
    """Starts the training and kills it some time after it has written another checkpoint or two."""
    wanted = newest(folder) + 2 * moment.randint(1, 3)
    worker = start(folder)
    try:
        deadline = time.monotonic() + WAIT_S
        while newest(folder) < wanted and worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment.random() * 0.02)
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()


def test_a_killed_training_ends_with_the_same_sae(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(WAIT_S) == 0
    moment = random.Random(0)
    for _ in range(KILLS):
        kill_in_the_middle(killed, moment)
        assert 0 < newest(killed) < 120
    assert start(killed).wait(WAIT_S) == 0
    wanted, found = (load_file(folder / "trained.safetensors") for folder in (whole, killed))
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
    assert [entry.name for entry in (killed / "checkpoints").iterdir()] == ["step-120"]
