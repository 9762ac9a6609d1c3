"""How much memory this process holds, and what a training step takes at its peak.

    python tests/benchmarks/memory.py [--threads 2] [--counted LATENTS WIDTH]

Least are weights, gradients, Adam's two moments and one batch x latents in fp32. With 4,608 and
36,864 latents the peak is measured, each in a process of its own. With 131,072 latents of 4,096
inputs, which fit no small machine, it is counted: the same step runs on tensors without contents,
and the bytes of all that live at once are added up.
"""

import argparse
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = 2  # the second is the first that has Adam's moments


def resident() -> int:
    """Bytes in memory now."""
    return _status_bytes("VmRSS")


def peak() -> int:
    """The most bytes that were in memory at once; not ru_maxrss, which a child inherits."""
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status does not tell {name}")


def most_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors that live at once while `work` runs; contents play no part."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counting(TorchDispatchMode):
        """Adds up the storages of everything that an operation returns."""

        def __init__(self) -> None:
            super().__init__()
            self.now = self.most = 0
            self._seen: set[int] = set()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = func(*args, **(kwargs or {}))
            for one in tree_leaves(found):
                if isinstance(one, torch.Tensor):
                    self._add(one.untyped_storage())
            return found

        def _add(self, storage: torch.UntypedStorage) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key in self._seen:
                return
            self._seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, key, size)

        def _remove(self, key: int, size: int) -> None:
            self._seen.discard(key)
            self.now -= size

    with Counting() as counting:
        work()
    return counting.most


def counted_step(latents: int, width: int, k: int, batch: int) -> int:
    """The peak of a TopK training whose tensors have shapes alone."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from mi_crow.mechanistic.sae.config import SaeTrainingConfig
    from mi_crow.mechanistic.sae.rules.topk import TopKSae
    from mi_crow.mechanistic.sae.source import TensorSource
    from mi_crow.mechanistic.sae.train.loop import Clock, train_step
    from mi_crow.mechanistic.sae.train.plan import make_plan
    from mi_crow.mechanistic.sae.train.state import TrainState
    from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics

    class WithoutDead(TrainState):
        """Counting dead latents would need contents."""

        def _dead_now(self) -> tuple[torch.Tensor | None, int]:
            return None, 0

    small = TensorSource(torch.ones(batch, 8), torch.zeros(batch, dtype=torch.bool))
    config = SaeTrainingConfig(
        steps=10**6, batch_size=batch, outlier_factor=None, log_every=10**6, lr=1e-4
    )
    plan = make_plan(TopKSae(16, 8, 4), small, config)

    def train() -> None:
        state = WithoutDead(TopKSae(latents, width, k), plan)
        state.step = 1  # the first step also writes a row of metrics, which needs contents
        metrics = StepMetrics(state, small, Clock(0.0, 0))
        for _ in range(STEPS):
            train_step(state, torch.empty(batch, width), metrics)

    with FakeTensorMode():
        return most_bytes(train)


def counted_row(latents: int, width: int, k: int, batch: int) -> dict[str, Any]:
    """The count beside the least, as numbers."""
    least = 16 * (2 * latents * width + latents + width) + 4 * batch * latents
    return {"bytes": counted_step(latents, width, k, batch), "least": least}


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.benchmarks.rows import Row, with_sleeping_threads, write_report
    from tests.benchmarks.train import Shape, memory_row, real_batches

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a step")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--width", type=int, default=576, help="where the peak is measured")
    parser.add_argument("--latents", type=int, nargs="+", default=[4608, 36_864])
    parser.add_argument("--counted", type=int, nargs=2, default=[131_072, 4096])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/memory.json"))
    parser.add_argument("--count-probe", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with_sleeping_threads(options.threads)
    if options.count_probe is not None:
        print(json.dumps(counted_row(*options.count_probe)))
        return
    rows = []
    batches = real_batches(None, options.tokens, options.width, "cpu")
    for latents in options.latents:
        rows.append(memory_row(Shape(batches, latents, options.k)))
        print(rows[-1].line(), flush=True)
    # In a process of its own: what is kept from step to step would be tensors without contents.
    given = json.dumps([*options.counted, options.k, options.tokens])
    command = [sys.executable, __file__, "--count-probe", given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"counted peak / least, {options.counted[0]} latents of {options.counted[1]} inputs"
    rows.append(Row(name, found["bytes"] / found["least"], "<= 1.25", found))
    print(rows[-1].line(), flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "count_probe"}
    write_report(options.out, settings, rows)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
