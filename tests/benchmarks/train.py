"""How near a TopK training step is to the work that it cannot do without, and how far from others.

    python tests/benchmarks/train.py [--only ROW] [--threads 2] [--device cuda]

Our step is the trainer's own, on real activations (SmolLM2-135M, layer 15; `--random` draws them).
Everything is timed in turns, three steps of each a round; a ratio is the median over the rounds of
the ratios within one. Only ratios mean anything across machines.

floor    ours against `x @ W.T` and `torch.topk`, and against the step with dense tensors
dead     ours against the same floor while 0, 50, 200 and 1,000 latents count as dead
peers    ours against the steps of sparsify's and SAELens's own trainers, each in a process of its
         own in an environment that is made once, which waits while we work
growth   what eight times the latents cost us, by what they cost the floor; in processes of their
         own the peak memory, by weights, gradients, optimizer and one batch x latents
waiting  share of the time that the loop waits for tokens of a stored run
cuda     with 32,768 latents in bf16, against product, top-k and fused Adam; only on CUDA

The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import SaeTrainingConfig
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.source import TRAIN, TensorSource, device_batches
from mi_crow.mechanistic.sae.train import loop
from mi_crow.mechanistic.sae.train.loop import Clock, train_step
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.mechanistic.sae.train.plan import TrainingPlan, make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics
from mi_crow.progress import NullProgress
from mi_crow.store.runs.reader import RunReader
from tests.benchmarks.captured import OUTLIER_FACTOR, smollm2_run
from tests.benchmarks.dense_reference import DenseReference
from tests.benchmarks.memory import peak, resident
from tests.benchmarks.peer_process import PeerProcess
from tests.benchmarks.rows import Row, with_sleeping_threads, write_report
from tests.peer.environment import DownloadFailed, kept_environment

Step = Callable[[Tensor], object]

BATCHES = 8  # different ones, in turn
STEPS = 3  # a round
WARM = 3
DEAD = (0, 50, 200, 1000)
ROWS = ("floor", "dead", "peers", "growth", "waiting", "cuda")


@dataclass(frozen=True)
class Shape:
    """What is trained, and on which tokens: some batches [batch, d] fp32 on the device."""

    batches: list[Tensor]
    latents: int
    k: int

    @property
    def device(self) -> torch.device:
        return self.batches[0].device

    @cached_property
    def source(self) -> TensorSource:
        tokens = torch.cat(self.batches).cpu()
        return TensorSource(tokens, torch.zeros(len(tokens), dtype=torch.bool))

    def fresh(self) -> tuple[TopKSae, TensorSource, SaeTrainingConfig]:
        """A new SAE, its tokens, and a training that is long enough to have no dead latents."""
        sae = TopKSae(self.latents, self.source.width, self.k, device=self.device)
        return sae, self.source, SaeTrainingConfig(steps=10**6, batch_size=len(self.batches[0]))


def real_batches(reader: RunReader | None, batch: int, width: int, device: str) -> list[Tensor]:
    """Shuffled tokens without outliers; without a reader random ones."""
    if reader is None:
        return [torch.randn(batch, width, device=device) for _ in range(BATCHES)]
    stored = reader.batches(batch, 0, TRAIN, OUTLIER_FACTOR * reader.median_norm())
    return [next(stored).float().to(device) for _ in range(BATCHES)]


def product_and_topk(shape: Shape) -> Step:
    """`x @ W.T` and its top-k: the floor of any TopK step."""
    rows = torch.randn(shape.latents, shape.batches[0].shape[1], device=shape.device)
    return lambda x: torch.topk(x @ rows.T, shape.k, dim=1)


class StateWithDead(TrainState):
    """A state in which some latents, evenly spread, count as dead whether they fire or not."""

    def __init__(self, sae: SparseAutoencoder, plan: TrainingPlan, n_dead: int) -> None:
        super().__init__(sae, plan)
        ids = torch.linspace(0, sae.n_latents - 1, n_dead, device=sae.device).long()
        self._always = (ids, n_dead)

    def _dead_now(self) -> tuple[Tensor | None, int]:
        return self._always


def our_step(shape: Shape, n_dead: int = 0) -> Step:
    """The step of the trainer's loop, with everything that it notes."""
    sae, source, config = shape.fresh()
    plan = make_plan(sae, source, config)
    state = StateWithDead(sae, plan, n_dead) if n_dead else TrainState(sae, plan)
    state.start(starting_point(sae, source, plan))
    metrics = StepMetrics(state, source, Clock(0.0, 0))
    return lambda x: train_step(state, x, metrics)


def dense_step(shape: Shape) -> Step:
    """The same recipe with [tokens, latents] tensors and autograd throughout."""
    sae, source, config = shape.fresh()
    plan = make_plan(sae, source, config)
    return DenseReference(sae, plan, starting_point(sae, source, plan)).step


def product_topk_and_adam(shape: Shape) -> Step:
    """The product in bf16, its top-k, and fused Adam on as many weights as an SAE has."""
    width = shape.batches[0].shape[1]
    sizes = [(shape.latents, width), (shape.latents, width), (shape.latents,), (width,)]
    parameters = [torch.randn(size, device=shape.device, requires_grad=True) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step(x: Tensor) -> None:
        with torch.no_grad():
            torch.topk(x.bfloat16() @ parameters[0].bfloat16().T, shape.k, dim=1)
        optimizer.step()

    return step


class Block:
    """Seconds a step of some steps, on batch after batch; warm from the beginning."""

    def __init__(self, step: Step, shape: Shape, steps: int = STEPS) -> None:
        self._step, self._shape, self._steps, self._at = step, shape, steps, 0
        self(WARM)

    def __call__(self, steps: int | None = None) -> float:
        steps = steps or self._steps
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            self._step(self._shape.batches[self._at % BATCHES])
            self._at += 1
        self._wait()
        return (time.perf_counter() - began) / steps

    def _wait(self) -> None:
        if self._shape.device.type == "cuda":
            torch.cuda.synchronize(self._shape.device)


def in_turns(blocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each, round by round."""
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            times[name].append(block())
    return times


def ratio_row(
    name: str, times: dict[str, list[float]], over: str, under: str, wanted: str, **more: Any
) -> Row:
    """The median over rounds of `over` / `under`."""
    ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
    found = {"rounds": ratios, "seconds": {one: times[one] for one in (over, under)}, **more}
    return Row(name, statistics.median(ratios), wanted, found)


def floor_rows(shape: Shape, rounds: int) -> list[Row]:
    makers = {"floor": product_and_topk, "ours": our_step, "dense": dense_step}
    times = in_turns({name: Block(make(shape), shape) for name, make in makers.items()}, rounds)
    return [
        ratio_row("our step / (product + top-k)", times, "ours", "floor", "<= 1.40"),
        ratio_row("dense reference / our step", times, "dense", "ours", ">= 3.5"),
    ]


def dead_rows(shape: Shape, rounds: int) -> list[Row]:
    """What AuxK adds. With 1,000 of 4,608 latents dead that is four products of a fifth of the
    floor's each, or as much work entry by entry: on a CPU it cannot keep the limit."""
    blocks = {"floor": Block(product_and_topk(shape), shape)} | {
        f"{n} dead": Block(our_step(shape, n), shape) for n in DEAD
    }
    times = in_turns(blocks, rounds)
    return [
        ratio_row(f"step with {n} dead / (product + top-k)", times, f"{n} dead", "floor", limit)
        for n in DEAD
        for limit in ["<= 1.70" if n else "<= 1.40"]
    ]


def peer_rows(shape: Shape, rounds: int, python: Path) -> list[Row]:
    wanted = {"sparsify": ">= 1.6", "saelens": ">= 4.5"}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        tokens, order = Path(scratch) / "tokens.safetensors", Path(scratch) / "order.safetensors"
        train = torch.cat(shape.batches).cpu()
        save_file({"train": train}, tokens)
        save_file({"order": torch.arange(len(train))}, order)
        given = {
            "tokens": str(tokens),
            "order": str(order),
            "latents": shape.latents,
            "k": shape.k,
            "batch": len(shape.batches[0]),
            "seed": 0,
            "steps": STEPS,
            "warm": WARM,
            "device": shape.device.type,
        }
        ours = Block(our_step(shape), shape)
        for peer, limit in wanted.items():
            with PeerProcess(python, f"{peer}_training", given) as theirs:
                times = in_turns({"ours": ours, peer: theirs.block}, rounds)
            rows.append(ratio_row(f"{peer} / our step", times, peer, "ours", limit))
    return rows


def growth_rows(shape: Shape, rounds: int) -> list[Row]:
    """How the cost grows with the latents, and what memory the training takes."""
    wide = Shape(shape.batches, 8 * shape.latents, shape.k)
    makers = {"floor": product_and_topk, "ours": our_step}
    blocks = {
        f"{name} {one.latents}": Block(make(one), one, 1)
        for one in (shape, wide)
        for name, make in makers.items()
    }
    times = in_turns(blocks, rounds)
    small, large = f"{shape.latents}", f"{wide.latents}"
    growths = [
        (ours_large / ours_small) / (floor_large / floor_small)
        for floor_small, ours_small, floor_large, ours_large in zip(*times.values(), strict=True)
    ]
    name = f"growth of the step from {small} to {large} latents / the floor's"
    found = {"rounds": growths, "seconds": times}
    return [
        Row(name, statistics.median(growths), "<= 1.15", found),
        *(memory_row(one) for one in (shape, wide)),
    ]


def memory_row(shape: Shape) -> Row:
    """Peak memory above the start, in a process of its own."""
    batch, width = shape.batches[0].shape
    given = {
        "latents": shape.latents,
        "k": shape.k,
        "device": shape.device.type,
        "threads": torch.get_num_threads(),
    }
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as tokens:
        save_file({"tokens": torch.cat(shape.batches).cpu()}, tokens.name)
        given |= {"tokens": tokens.name, "batch": batch}
        command = [sys.executable, __file__, "--memory-probe", json.dumps(given)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    weights = 4 * (2 * shape.latents * width + shape.latents + width)
    itemsize = 2 if shape.device.type == "cuda" else 4  # of the encoder's product
    least = 4 * weights + itemsize * batch * shape.latents
    more = {"bytes": found["bytes"], "weights_gradients_optimizer_and_product": least}
    name = f"peak memory above the start / least, {shape.latents} latents"
    return Row(name, found["bytes"] / least, "<= 1.25", more)


def memory_probe(given: dict[str, Any]) -> None:
    """Trains some steps and prints by how many bytes the peak lies above the start."""
    from safetensors.torch import load_file

    tokens = load_file(given["tokens"])["tokens"].to(given["device"])
    shape = Shape(list(tokens.split(given["batch"])), given["latents"], given["k"])
    # What any training loads and starts once does not grow with the SAE.
    small = Shape([batch[:64] for batch in shape.batches], 256, shape.k)
    Block(our_step(small), small)()
    assert shape.source.width  # the tokens are there before the training
    start = memory_now(shape.device)
    Block(our_step(shape), shape)()
    print(json.dumps({"bytes": memory_peak(shape.device) - start}))


def memory_now(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return resident()


def memory_peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak()


def waiting_row(reader: RunReader, shape: Shape, steps: int) -> Row:
    """Share of the loop's time, from the first batch asked for to the last one had, that goes into
    getting batches of a stored run.

    On CUDA that is what the host waits: at least what the device does.
    """
    asked: list[float] = []
    had: list[float] = []

    def timed(
        batches: Iterator[Tensor], device: torch.device, live: bool = False
    ) -> Generator[Tensor, None, None]:
        with closing(device_batches(batches, device, live)) as real:
            while True:
                asked.append(time.perf_counter())
                batch = next(real)
                had.append(time.perf_counter())
                yield batch

    sae = TopKSae(shape.latents, reader.width, shape.k, device=shape.device)
    config = SaeTrainingConfig(steps=steps, batch_size=len(shape.batches[0]))
    plan = make_plan(sae, reader, config)
    state = TrainState(sae, plan)
    state.start(starting_point(sae, reader, plan))
    with patch.object(loop, "device_batches", timed):
        loop.run_training([loop.Training(state, MetricsTable(), None)], reader, NullProgress())
    waits = [b - a for a, b in zip(asked, had, strict=True)]
    seconds = had[-1] - asked[0]
    more = {"steps": steps, "seconds": seconds, "first_batch": waits[0], "waited": sum(waits)}
    return Row("share of the loop that waits for tokens", sum(waits) / seconds, "< 0.03", more)


def cuda_row(shape: Shape, rounds: int) -> Row:
    wide = Shape(shape.batches, 32_768, shape.k)
    makers = {"floor": product_topk_and_adam, "ours": our_step}
    times = in_turns({name: Block(make(wide), wide, 20) for name, make in makers.items()}, rounds)
    name = "our step / (product + top-k + fused Adam), 32,768 latents, bf16"
    return ratio_row(name, times, "ours", "floor", "<= 1.50")


def measured(options: argparse.Namespace, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows that were asked for, as they come."""
    reader = None if options.random else smollm2_run()
    width = options.width if reader is None else reader.width
    batches = real_batches(reader, options.tokens, width, options.device)
    shape = Shape(batches, options.latents, options.k)
    if "floor" in wanted:
        yield from floor_rows(shape, options.rounds)
    if "dead" in wanted:
        yield from dead_rows(shape, options.rounds)
    if "peers" in wanted:
        try:
            yield from peer_rows(shape, options.rounds, options.peer or kept_environment())
        except DownloadFailed as error:
            print(f"the peers cannot be downloaded, left out: {error}")
    if "growth" in wanted:
        yield from growth_rows(shape, options.rounds)
    if "waiting" in wanted and reader is not None:
        yield waiting_row(reader, shape, options.steps)
    if "cuda" in wanted and shape.device.type == "cuda":
        yield cuda_row(shape, options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a step")
    parser.add_argument("--width", type=int, default=576, help="of random tokens")
    parser.add_argument("--latents", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="of the loop, for the waiting share")
    parser.add_argument("--random", action="store_true", help="random tokens, no stored run")
    parser.add_argument("--only", choices=ROWS, nargs="+")
    parser.add_argument("--peer", type=Path, help="Python with SAELens and sparsify")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/train.json"))
    parser.add_argument("--memory-probe", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with_sleeping_threads(options.threads)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    if options.memory_probe is not None:
        memory_probe(options.memory_probe)
        return
    settings = {name: value for name, value in vars(options).items() if name != "memory_probe"}
    rows: list[Row] = []
    for row in measured(options, options.only or ROWS):
        rows.append(row)
        print(row.line(), flush=True)
        write_report(options.out, settings, rows)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
