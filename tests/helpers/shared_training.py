"""Processes that train SAEs together; each is run as `python -m tests.helpers.shared_training`.

What they are to train comes as JSON, a list of cases. The trained tensors and the history of each
case go to files a rank.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.errors import CancelledError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import TRANSCODERS, SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.source import TensorSource, TokenSource
from mi_crow.mechanistic.sae.train.run import new_sae
from mi_crow.mechanistic.sae.train.trainer import train_many
from mi_crow.ranks import ALONE, Ranks, ranks_from_environment
from mi_crow.store.runs import blocks
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.runs.reads import EVERY_ROW
from tests.helpers.progress import Watched
from tests.helpers.stored_runs import LAYER

WIDTH, LATENTS, K = 16, 67, 4  # an odd number of latents: shares of different sizes
FIELDS: dict[str, Any] = {"seed": 1, "log_every": 1}

Trained = tuple[dict[str, Tensor], dict[str, list[Any]]]


def tokens(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(96, width, generator=generator, dtype=torch.float64)
    on = torch.rand(3000, 96, generator=generator).topk(5, dim=1).indices
    strengths = torch.rand(3000, 5, generator=generator, dtype=torch.float64) + 0.5
    return torch.zeros(3000, 96, dtype=torch.float64).scatter(1, on, strengths) @ rows


def make_sae(arch: str) -> SparseAutoencoder:
    target = "another" if arch in TRANSCODERS else None
    config = TrainConfig("", "", arch, n_latents=LATENTS, k=K, target_layer=target)
    return new_sae(config, WIDTH, WIDTH if target else None, torch.device("cpu"))


def train(
    arch: str,
    fields: dict[str, Any],
    double: bool = False,
    folder: str | None = None,
    stop_at: int | None = None,
    shares: str = "tokens",
    copies: int = 1,
    gradients: str = "fp32",
    run: str | None = None,
    buffer: int = 1 << 30,
    ranks: Ranks = ALONE,
) -> Trained:
    """An SAE's tensors after training, alone or with others, and its history; without tensors when
    the training was stopped."""
    sae = make_sae(arch).to(torch.float64 if double else torch.float32)
    target = float(K) if sae.steers_sparsity else None
    config = SaeTrainingConfig(**(FIELDS | fields), target_l0=target)
    source: TokenSource = TensorSource(tokens(sae.training_width))
    if run is not None:
        source = RunReader(Path(run), LAYER, buffer)
    try:
        done = train_many(
            [sae],
            source,
            config,
            Watched(done=stop_at),
            [folder],
            ranks,
            shares,
            copies=copies,
            gradients=gradients,
        )[0]
    except CancelledError:
        return {}, {}
    return {name: tensor.contiguous() for name, tensor in sae.state_dict().items()}, done.history


def train_shared(
    folder: Path, cases: Sequence[dict[str, Any]], world: int = 2
) -> list[list[Trained]]:
    """What each of `world` processes has in the end, case by case."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = []
    for rank in range(world):
        place = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        surroundings = {name: str(value) for name, value in (place | where).items()}
        command = [
            sys.executable,
            "-m",
            "tests.helpers.shared_training",
            str(folder),
            json.dumps(cases),
        ]
        started.append(subprocess.Popen(command, env=os.environ | surroundings))
    try:
        codes = [process.wait(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0] * world
    return [
        [_read(folder / f"case-{number}-rank-{rank}") for rank in range(world)]
        for number in range(len(cases))
    ]


def _read(path: Path) -> Trained:
    tensors = path.with_suffix(".safetensors")
    history = json.loads(path.with_suffix(".json").read_text())
    return (load_file(tensors) if tensors.exists() else {}), history


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts what a process does in the block: rows that it gathers, bytes that it reads from
    files, all_reduce calls and the bytes in them."""
    import torch.distributed as dist

    counts: dict[str, int] = {"rows": 0, "read": 0, "calls": 0, "sent": 0}
    reduce, gather, fill = dist.all_reduce, RunReader._gather, blocks._fill

    def reducing(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.numel() > LATENTS:  # of gradients; sums of a few numbers are not traffic
            counts["calls"] += 1
            counts["sent"] += tensor.nbytes
        return reduce(tensor, *args, **kwargs)

    def gathering(self: RunReader, chosen: Any, *args: Any) -> Tensor:
        found = gather(self, chosen, *args)
        if args[1:] and args[1] is not EVERY_ROW:  # for training, not to measure
            counts["rows"] += len(found)
        return found

    def filling(block: Any, *args: Any) -> None:
        counts["read"] += block.values.nbytes if args[-1] is not None else 0  # a share of a block
        fill(block, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", reducing)
        patch.setattr(RunReader, "_gather", gathering)
        patch.setattr(blocks, "_fill", filling)
        yield counts


def main() -> None:
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    with ranks_from_environment() as ranks:
        for number, case in enumerate(cases):
            with counted() as counts:
                tensors, history = train(**case, ranks=ranks)
            history["counts"] = [counts]
            path = folder / f"case-{number}-rank-{ranks.rank}"
            if tensors:
                save_file(tensors, path.with_suffix(".safetensors"))
            path.with_suffix(".json").write_text(json.dumps(history))


if __name__ == "__main__":
    main()
