"""How far a TopK training step is from the product that it cannot do without.

    python tests/benchmarks/train.py [--tokens 2048] [--width 576] [--latents 4608] [--k 32]

Times three things in the same process, in turns: the encoder's product and its top-k alone, our
training step, and the same step written with dense tensors in plain PyTorch. Only the ratios mean
anything across machines. The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.config import SaeTrainingConfig
from mi_crow.mechanistic.sae.plan import make_plan, starting_point
from mi_crow.mechanistic.sae.source import TensorSource
from mi_crow.mechanistic.sae.state import TrainState
from mi_crow.mechanistic.sae.topk import TopKSae

Step = Callable[[], object]


def product_and_topk(x: Tensor, latents: int, k: int) -> Step:
    """`x @ W.T` and its top-k: the floor of any TopK step."""
    rows = torch.randn(latents, x.shape[1], device=x.device)
    return lambda: torch.topk(x @ rows.T, k, dim=1)


def our_step(x: Tensor, latents: int, k: int) -> Step:
    """One step of the trainer: forward, backward, Adam, renormalisation, firing counts."""
    sae = TopKSae(latents, x.shape[1], k, device=x.device)
    source = TensorSource(x.cpu())
    plan = make_plan(sae, source, SaeTrainingConfig(steps=1000, batch_size=64))
    state = TrainState(sae, plan)
    state.start(starting_point(sae, source, plan))
    scaled = x * state.scale

    def step() -> None:
        context = state.context()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            output = sae.training_output(scaled, scaled, context)
        sum(output.losses.values(), torch.zeros((), device=x.device)).backward()
        state.apply_gradients()
        state.count_firing(output.fired, len(scaled))
        state.step += 1

    return step


def dense_step(x: Tensor, latents: int, k: int) -> Step:
    """The same arithmetic with [tokens, latents] tensors and autograd throughout."""
    decoder = torch.randn(latents, x.shape[1], device=x.device)
    decoder /= decoder.norm(dim=1, keepdim=True)
    encoder = decoder.clone().requires_grad_()
    decoder.requires_grad_()
    b_enc = torch.zeros(latents, device=x.device, requires_grad=True)
    b_dec = x.mean(0).clone().requires_grad_()
    optimizer = torch.optim.Adam([encoder, decoder, b_enc, b_dec], lr=1e-4)

    def step() -> None:
        pre = (x - b_dec) @ encoder.T + b_enc
        top = pre.topk(k, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        (x - (z @ decoder + b_dec)).square().mean().backward()
        gradient = decoder.grad
        assert gradient is not None
        with torch.no_grad():
            gradient.sub_((gradient * decoder).sum(1, keepdim=True) * decoder)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            decoder.div_(decoder.norm(dim=1, keepdim=True))

    return step


def milliseconds(step: Step, device: torch.device) -> float:
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--latents", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/train.json"))
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    device = torch.device(arguments.device)
    x = torch.randn(arguments.tokens, arguments.width, device=device)
    makers = {
        "x @ W.T + topk": product_and_topk,
        "mi-crow step": our_step,
        "dense step": dense_step,
    }
    steps = {name: make(x, arguments.latents, arguments.k) for name, make in makers.items()}
    for step in steps.values():
        milliseconds(step, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times[name].append(milliseconds(step, device))

    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians["mi-crow step"]
    ratios = {name: ours / median for name, median in medians.items()}
    print(f"{'':16} {'median ms':>10} {'least ms':>10} {'ours / it':>10}")
    for name, values in times.items():
        print(f"{name:16} {medians[name]:10.1f} {min(values):10.1f} {ratios[name]:10.2f}")
    result = {
        "settings": {name: str(value) for name, value in vars(arguments).items() if name != "out"},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "milliseconds": times,
        "ours_over": {"product_and_topk": ratios["x @ W.T + topk"], "dense": ratios["dense step"]},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
