"""Where the time of a training goes: in kernels, in copies, or waiting for the host.

    python tests/gpu/profile_training.py [--device cuda] [--latents 36864] [--width 2304]

The trainer's own loop on tokens in host memory, checkpoint included. On a CPU there is nothing to
wait for: operators and copies are beside what Python does between them.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.sae.config import SaeTrainingConfig
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.source import TensorSource
from mi_crow.mechanistic.sae.train.trainer import train_many
from tests.benchmarks.rows import Row, write_report

COPIES = ("memcpy", "memset", "copy_", "_to_copy")
MOST_ROWS = 8


def train(options: argparse.Namespace, folder: Path, steps: int) -> None:
    """Trains an SAE for some steps on random tokens."""
    tokens = torch.randn(8 * options.tokens, options.width)
    source = TensorSource(tokens, torch.zeros(len(tokens), dtype=torch.bool))
    sae = TopKSae(options.latents, options.width, options.k, device=options.device)
    config = SaeTrainingConfig(steps=steps, batch_size=options.tokens, outlier_factor=None)
    train_many([sae], source, config, folders=[folder])


def shares(events: Iterable[Any], on_gpu: bool, seconds: float) -> list[Row]:
    """Each kind's part of the time on the clock, and the most expensive operations."""
    spent: dict[str, float] = {}
    for event in events:
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if own > 0:
            spent[event.key] = spent.get(event.key, 0.0) + own / 1e6
    copies = sum(own for key, own in spent.items() if any(one in key.lower() for one in COPIES))
    kernels = sum(spent.values()) - copies
    rows = [
        Row("share of time in kernels", kernels / seconds),
        Row("share of time in copies", copies / seconds),
        Row("share of time that the device waits", max(0.0, 1 - (kernels + copies) / seconds)),
    ]
    dearest = sorted(spent.items(), key=lambda one: -one[1])[:MOST_ROWS]
    return rows + [Row(f"  {key[:56]}", own / seconds) for key, own in dearest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a step")
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--latents", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("build/gpu/profile.json"))
    options = parser.parse_args()
    on_gpu = torch.device(options.device).type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with tempfile.TemporaryDirectory() as scratch:
        train(options, Path(scratch) / "warm", 3)
        with profile(activities=activities) as found:
            began = time.perf_counter()
            train(options, Path(scratch) / "measured", options.steps)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - began
    rows = shares(found.key_averages(), on_gpu, seconds)
    for row in rows:
        print(row.line())
    write_report(options.out, vars(options), rows)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
