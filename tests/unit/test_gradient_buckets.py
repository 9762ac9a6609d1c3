"""Gradients are sent while the backward pass goes on, in one order, in few messages."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.parallel import buckets
from mi_crow.mechanistic.sae.parallel.buckets import GradientBuckets
from mi_crow.mechanistic.sae.parallel.mesh import open_sharing


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A group of this process alone; sums leave everything as it is."""
    monkeypatch.setattr(buckets, "_SMALL_BYTES", 64)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class Watched(torch.autograd.Function):
    """The identity, which notes when its gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, notes: list[Any]) -> Tensor:
        ctx.notes = notes
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.notes.append("encoder's gradient")
        return grad, None


@pytest.mark.parametrize("kind", [None, torch.bfloat16])
def test_the_decoder_is_sent_before_the_encoder_has_its_gradient(
    group: Any, monkeypatch: pytest.MonkeyPatch, kind: torch.dtype | None
) -> None:
    notes: list[Any] = []
    reduce = dist.all_reduce

    def noted(tensor: Tensor, **options: Any) -> Any:
        notes.append((tensor.numel(), tensor.dtype))
        return reduce(tensor, **options)

    monkeypatch.setattr(dist, "all_reduce", noted)
    encoder, bias, decoder = (nn.Parameter(torch.randn(*n)) for n in ((8, 40), (8,), (8, 50)))
    summed = GradientBuckets(group, lambda value: value, kind, bucket_bytes=400 * 4)
    x = torch.randn(5, 40)
    for step in range(3):
        notes.clear()
        summed.begin()
        hidden = Watched.apply(x @ encoder.T + bias, notes)
        ((hidden @ decoder) ** 2).sum().backward()
        made = [one.grad.clone() for one in (encoder, bias, decoder) if one.grad is not None]
        summed.finish([encoder, bias, decoder])
        for one, before in zip((encoder, bias, decoder), made, strict=True):
            wanted = before if kind is None else before.to(kind).float()
            assert one.grad is not None
            assert torch.equal(one.grad, wanted)
            one.grad = None
        sent = [note for note in notes if note != "encoder's gradient"]
        assert sorted(n for n, _ in sent) == [8, 320, 400]
        assert {of for _, of in sent} == {kind or torch.float32}
        if step == 2:  # the order was seen in the second step
            assert notes.index((400, kind or torch.float32)) < notes.index("encoder's gradient")
    summed.begin()
    Watched.apply(x @ encoder.T, notes).sum().backward()
    summed.finish([encoder, bias, decoder])  # what has no gradient is not sent
    assert decoder.grad is None


def test_large_gradients_go_in_stretches(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    reduce = dist.all_reduce

    def noted(tensor: Tensor, **options: Any) -> Any:
        sizes.append(tensor.numel())
        return reduce(tensor, **options)

    monkeypatch.setattr(dist, "all_reduce", noted)
    wide = nn.Parameter(torch.randn(10, 25))
    (wide**2).sum().backward()
    GradientBuckets(group, lambda value: value, bucket_bytes=100 * 4).finish([wide])
    assert sizes == [100, 100, 50]


def test_copies_that_do_not_divide_the_processes_are_refused() -> None:
    class Three:
        rank, world = 0, 3

    ranks: Any = Three()
    with pytest.raises(UserError, match="3 processes cannot share the latents of 2 copies"):
        open_sharing(ranks, "latents", torch.device("cpu"), 64, copies=2)


def test_copies_are_of_shared_latents() -> None:
    with pytest.raises(UserError, match="copies are of an SAE whose latents are shared"):
        TrainConfig("run", "layer", copies=2)
    with pytest.raises(UserError, match="gradients 'fp8' is not known"):
        TrainConfig("run", "layer", gradients="fp8")
