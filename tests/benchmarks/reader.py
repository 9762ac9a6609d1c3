"""Whether the reader of a run feeds a trainer faster than it can eat.

    python tests/benchmarks/reader.py [--tokens 300000] [--device cuda]

Writes a run of random bf16 tokens of width 576, then times, in turns in one process, shuffled
batches of 2,048 from the reader and real TopK training steps on those batches. `whole` is a run
that is permuted as one, `blocks` the same run read as one too large for memory. On CUDA the
question is which share of the time training waits for tokens: the same steps are timed on batches
that lie on the device already. The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.sae.config import SaeTrainingConfig
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.source import device_batches
from mi_crow.mechanistic.sae.train.loop import Clock, train_step
from mi_crow.mechanistic.sae.train.plan import make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics
from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA, stored_rows, write_part
from mi_crow.store.runs.reader import RunReader

LAYER = "model.layers.15"
BATCH, K = 2048, 32
LATENTS = {"cpu": 4608, "cuda": 32_768}
STEPS = {"cpu": 4, "cuda": 200}  # a round
PART_TOKENS = 50_000
READS = 40  # batches a round
LEAST_RATIO, MOST_WAITING = 5.0, 0.03


def reader_row(run_dir: Path, layer: str, device: str, rounds: int = 5) -> dict[str, Any]:
    """What the reader gives and what the trainer takes, in tokens a second; on CUDA also the share
    of the time that training waits."""
    began = time.perf_counter()
    reader = RunReader(run_dir, layer)
    opened = time.perf_counter() - began
    an_eighth = reader.n_tokens * reader.width * 2 // 8
    readers = {"whole": reader, "blocks": RunReader(run_dir, layer, buffer_bytes=an_eighth)}
    trainer = Trainer(reader, torch.device(device))
    kind = trainer.device.type
    streams = {name: one.batches(BATCH, 0) for name, one in readers.items()}
    times: dict[str, list[float]] = {"train": [], **{name: [] for name in readers}}
    waiting: dict[str, list[float]] = {name: [] for name in readers}
    batches: list[Tensor] = []
    for stream in streams.values():
        next(stream)
    for _ in range(rounds):
        for name, stream in streams.items():
            seconds, batches = _timed(lambda stream=stream: list(islice(stream, READS)))
            times[name].append(seconds / READS)
        resident = [batch.to(trainer.device) for batch in batches]
        seconds = trainer.seconds(cycle(resident), STEPS[kind])
        times["train"].append(seconds / STEPS[kind])
        if kind == "cuda":
            for name, one in readers.items():
                with closing(device_batches(one.batches(BATCH, 0), trainer.device)) as fed:
                    next(fed)
                    fed_seconds = trainer.seconds(fed, STEPS[kind])
                waiting[name].append(max(0.0, 1 - seconds / fed_seconds))
    rates = {name: BATCH / statistics.median(values) for name, values in times.items()}
    ratios = {name: rates[name] / rates["train"] for name in readers}
    row: dict[str, Any] = {
        "row": "reader",
        "device": device,
        "dtype": reader.manifest.dtype,
        "width": reader.width,
        "n_latents": LATENTS[kind],
        "tokens": reader.n_tokens,
        "open_ms": opened * 1000,
        "tokens_s": rates,
        "over_training": ratios,
        "seconds_a_batch": times,
        "passed": min(ratios.values()) >= LEAST_RATIO,
    }
    if kind == "cuda":
        row["waiting"] = {name: statistics.median(values) for name, values in waiting.items()}
        row["passed"] = max(row["waiting"].values()) <= MOST_WAITING
    return row


class Trainer:
    """Real steps of a TopK SAE on the tokens of a run."""

    def __init__(self, reader: RunReader, device: torch.device) -> None:
        self.device = device
        sae = TopKSae(LATENTS[device.type], reader.width, K, device=device)
        config = SaeTrainingConfig(steps=1_000_000, batch_size=BATCH, warmup_steps=100)
        plan = make_plan(sae, reader, config)
        self._state = TrainState(sae, plan)
        self._state.start(starting_point(sae, reader, plan))
        self._metrics = StepMetrics(self._state, reader, Clock(0.0, 0))
        self.seconds(device_batches(reader.batches(BATCH, 0), device), 3)  # warm

    def seconds(self, batches: Iterator[Tensor], steps: int) -> float:
        """How long so many steps take, reading included."""

        def work() -> None:
            for batch in islice(batches, steps):
                train_step(self._state, batch.float(), self._metrics)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return _timed(work)[0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def write_run(run_dir: Path, tokens: int, width: int, dtype: str) -> None:
    """A run of random tokens in documents of 125."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for index, first in enumerate(range(0, tokens, PART_TOKENS)):
        n = min(PART_TOKENS, tokens - first)
        lengths = [min(125, n - at) for at in range(0, n, 125)]
        part = PartSpec(0, index, len(lengths), n, shard=index)
        table = pa.Table.from_pylist(
            [
                {
                    "document": number,
                    "window": 0,
                    "text": "",
                    "label": None,
                    "split": "heldout" if number % 10 == 0 else "train",
                    "token_ids": list(range(length)),
                    "kept": list(range(length)),
                }
                for number, length in enumerate(lengths, first)
            ],
            schema=DOCUMENT_SCHEMA,
        )
        rows = stored_rows(torch.randn(n, width, generator=generator), dtype)
        write_part(run_dir, part, table, {LAYER: rows})
        parts.append(part)
    RunManifest(
        run_id=run_dir.name,
        model_id="random",
        revision=None,
        tokenizer_hash="",
        layers=[LayerSpec(LAYER, "resid_post.15", width)],
        dtype=dtype,
        dataset={},
        fingerprint="",
        settings={},
        created=0.0,
        status="complete",
        parts=parts,
    ).save(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/reader.json"))
    options = parser.parse_args()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        write_run(run_dir, options.tokens, options.width, options.dtype)
        row = reader_row(run_dir, LAYER, options.device, options.rounds)
    print(f"{'':10} {'tokens/s':>14} {'of training':>12} {'waiting':>8}")
    for name, rate in row["tokens_s"].items():
        ratio = row["over_training"].get(name, 1.0)
        waiting = row.get("waiting", {}).get(name)
        shown = "" if waiting is None else f"{waiting:8.1%}"
        print(f"{name:10} {rate:14,.0f} {ratio:12.1f} {shown}")
    print(f"opened in {row['open_ms']:.1f} ms; {'passed' if row['passed'] else 'FAILED'}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": [row]}
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
