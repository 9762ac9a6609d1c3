"""What each architecture costs beside TopK, and how well it does with the same tokens and L0.

    python tests/benchmarks/architectures.py [--tokens FILE.pt] [--latents 2304] [--steps 600]

Step times are taken in one process, in turns; only their ratios mean anything. Then each trains on
the same tokens, TopK kinds with k, the others steered to the same L0. Without a file (a tensor
[n, d] of activations) the tokens are sums of 32 of 2,304 directions in 288 dimensions.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    L1Sae,
    MatryoshkaSae,
    SaeTrainer,
    SaeTrainingConfig,
    SparseAutoencoder,
    TopKSae,
)
from mi_crow.mechanistic.sae.source import TensorSource
from mi_crow.mechanistic.sae.train.loop import Clock, train_step
from mi_crow.mechanistic.sae.train.plan import make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics

NAMES = ("topk", "batchtopk", "matryoshka", "l1", "jumprelu", "gated")


def make(name: str, latents: int, width: int, k: int, device: str) -> SparseAutoencoder:
    with_k = {"topk": TopKSae, "batchtopk": BatchTopKSae, "matryoshka": MatryoshkaSae}
    if name in with_k:
        return with_k[name](latents, width, k, device=device)
    steered = {"l1": L1Sae, "jumprelu": JumpReluSae, "gated": GatedSae}
    return steered[name](latents, width, device=device)


def synthetic_tokens(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2304, 288, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    on = torch.rand(40_000, 2304, generator=generator).topk(32, dim=1).indices
    strengths = torch.rand(40_000, 32, generator=generator) + 0.5
    return torch.zeros(40_000, 2304).scatter(1, on, strengths) @ rows


def training(sae: SparseAutoencoder, k: int, **fields: Any) -> SaeTrainingConfig:
    target = float(k) if sae.steers_sparsity else None
    return SaeTrainingConfig(target_l0=target, **fields)


def step_times(
    source: TensorSource, latents: int, k: int, batch: int, rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of a step on one batch, round by round."""
    trainings = []
    for name in NAMES:
        sae = make(name, latents, source.width, k, device)
        plan = make_plan(sae, source, training(sae, k, steps=10**6, batch_size=batch))
        state = TrainState(sae, plan)
        state.start(starting_point(sae, source, plan))
        trainings.append((name, state, StepMetrics(state, source, Clock(0.0, 0))))
    tokens = next(source.batches(batch, 0)).float().to(device)
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range(rounds + 2):
        for name, state, metrics in trainings:
            began = time.perf_counter()
            train_step(state, tokens, metrics)
            if device != "cpu":
                torch.cuda.synchronize()
            if number >= 2:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--latents", type=int, default=2304)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/architectures.json"))
    options = parser.parse_args()

    torch.set_flush_denormal(True)
    loaded = torch.load(options.tokens, weights_only=True) if options.tokens else None
    source = TensorSource(synthetic_tokens() if loaded is None else loaded)
    times = step_times(
        source, options.latents, options.k, options.batch, options.rounds, options.device
    )
    topk = statistics.median(times["topk"])
    print(f"{'':12} {'step ms':>8} {'/ topk':>7} {'fvu':>7} {'l0':>6} {'dead':>6} {'dense':>6}")
    rows = {}
    for name in NAMES:
        sae = make(name, options.latents, source.width, options.k, options.device)
        trainer = SaeTrainer(sae)
        fields = {"steps": options.steps, "batch_size": options.batch}
        trainer.train_on(source, training(sae, options.k, **fields))
        assert trainer.result is not None
        median, result = statistics.median(times[name]), trainer.result
        rows[name] = {"step_ms": 1e3 * median, "over_topk": median / topk, **result.as_json()}
        print(
            f"{name:12} {1e3 * median:8.1f} {median / topk:7.2f} {result.fvu:7.4f} "
            f"{result.l0:6.1f} {result.dead_share:6.1%} {result.dense_share:6.1%}",
            flush=True,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
