"""A training on a GPU: no step mixes tensors of two devices, and none waits without need.

The device is pretended (`pretend_device.py`); what waits for one is noticed as decoding notices it.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mi_crow.language_model.decoding.watched import watching
from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    L1Sae,
    SaeTrainer,
    SaeTrainingConfig,
    SparseAutoencoder,
    TopKSae,
    Transcoder,
)
from mi_crow.mechanistic.sae.kernels import bags
from mi_crow.mechanistic.sae.source import TensorSource
from mi_crow.mechanistic.sae.train.loop import Clock, train_step
from mi_crow.mechanistic.sae.train.plan import make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics
from mi_crow.mechanistic.sae.train.whitening import whitening_of
from tests.helpers.pretend_device import DEVICE, MOVED, pretend_device

LATENTS, WIDTH, BATCH = 48, 16, 8
STEPS = 13  # dead latents are looked up in every tenth

LOOKS = "looks at values"  # how many latents are active is known to the device alone
CASES: dict[str, tuple[Callable[[], SparseAutoencoder], dict[str, Any], str]] = {
    "topk": (lambda: TopKSae(LATENTS, WIDTH, 4, device=DEVICE), {}, ""),
    "pieces": (lambda: TopKSae(LATENTS, WIDTH, 4, device=DEVICE), {"accumulate": 2}, ""),
    "whitened": (lambda: TopKSae(LATENTS, WIDTH, 4, device=DEVICE), {"whiten": True}, ""),
    "transcoder": (lambda: Transcoder(LATENTS, WIDTH // 2, WIDTH // 2, 4, device=DEVICE), {}, ""),
    "batchtopk": (lambda: BatchTopKSae(LATENTS, WIDTH, 4, device=DEVICE), {}, LOOKS),
    "jumprelu": (lambda: JumpReluSae(LATENTS, WIDTH, device=DEVICE), {"target_l0": 4.0}, LOOKS),
    "gated": (lambda: GatedSae(LATENTS, WIDTH, device=DEVICE), {"target_l0": 4.0}, LOOKS),
    "l1": (lambda: L1Sae(LATENTS, WIDTH, device=DEVICE), {"target_l0": 4.0}, LOOKS),
}


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # for autocast
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_step_mixes_no_devices_and_waits_only_for_the_number_of_active_latents(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, changes, reason = CASES[case]
    monkeypatch.setattr(bags, "gpu_kernels", lambda _: None)  # `embedding_bag` does the same
    generator = torch.Generator().manual_seed(0)
    source = TensorSource(20 * torch.randn(2000, WIDTH, generator=generator))
    config = SaeTrainingConfig(steps=40, batch_size=BATCH, dead_tokens=BATCH, **changes)
    batches, told = source.batches(BATCH, 0), list[str]()
    with pretend_device():
        sae = make()
        plan = make_plan(sae, source, config, DEVICE)
        state = TrainState(sae, plan)
        if plan.whiten:
            state.whitening = whitening_of(source, None, 0.1)
        state.start(starting_point(sae, source, plan, state.whitening))
        metrics = StepMetrics(state, source, Clock(0.0, 0))
        for _ in range(STEPS):
            tokens = next(batches).to(DEVICE)
            MOVED.clear()
            with watching(DEVICE) as watched:
                train_step(state, tokens, metrics)
            told.append(watched.reason or f"{MOVED or ''}")
        assert state.n_dead() > 0 or reason  # so that AuxK has something to do
        assert math.isfinite(float(sae.W_dec.cpu().sum()))
    assert told[-2:] == [told[-1]] * 2
    assert (reason in told[-1]) if reason else not told[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda: TopKSae(512, 64, 8, device="cuda"), {"orthogonality": 0.5}),
        (lambda: BatchTopKSae(512, 64, 8, device="cuda"), {}),
        (lambda: JumpReluSae(512, 64, device="cuda"), {"target_l0": 8.0}),
        (lambda: GatedSae(512, 64, device="cuda"), {"target_l0": 8.0}),
    ],
    ids=["topk", "batchtopk", "jumprelu", "gated"],
)
def test_a_seed_gives_the_same_sae_on_a_gpu(
    make: Callable[[], SparseAutoencoder], changes: dict[str, Any]
) -> None:
    source = TensorSource(torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)))
    config = SaeTrainingConfig(steps=60, batch_size=1024, dead_tokens=4096, **changes)
    found = []
    for _ in range(2):
        sae = make()
        SaeTrainer(sae).train_on(source, config)
        found.append(sae.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
