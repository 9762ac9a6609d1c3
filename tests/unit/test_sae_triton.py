"""The Triton kernels do what `embedding_bag` does, on the GPU or through Triton's interpreter.

Triton decides which of the two when it is imported: without a GPU `test_sae_triton_here.py` runs
this file in a process of its own.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae import JumpReluSae, TopKSae
from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder
from mi_crow.mechanistic.sae.kernels import bags
from mi_crow.mechanistic.sae.kernels.entries import decode_entries, encode_above, encode_topk

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device or Triton's interpreter", allow_module_level=True)
pytest.importorskip("triton", reason="Triton comes with the CUDA builds of PyTorch")

PIECE = 8  # entries; longer bags are summed in pieces

# Empty bags at the start, between others and at the end; one entry; exactly a piece, one more.
COUNTS = ([0, 3, 0, 29, 1, PIECE, PIECE + 1, 5, 0], [2] * 3, [0, 0], [1], [40])
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def triton_kernels() -> Any:
    """The kernels, with pieces that a small test fills."""
    module: Any = import_module("mi_crow.mechanistic.sae.kernels.triton_kernels")
    module._PIECE = PIECE
    return module


@pytest.fixture
def by_triton(triton_kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sparse arithmetic takes the Triton kernels."""
    monkeypatch.setattr(bags, "gpu_kernels", lambda _: triton_kernels)


def made_bags(counts: list[int], width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(len(counts) + width)
    lengths, n_entries = torch.tensor(counts, dtype=torch.int64), sum(counts)
    made = {
        "columns": torch.randint(0, 40, (n_entries,)),
        "weights": torch.randn(n_entries, dtype=dtype),
        "starts": lengths.cumsum(0) - lengths,
        "rows": torch.randn(40, width, dtype=dtype),
        "owners": torch.arange(len(counts)).repeat_interleave(lengths),
        "grad": torch.randn(len(counts), width, dtype=dtype),
    }
    return {name: tensor.to(DEVICE) for name, tensor in made.items()}


def summed(made: dict[str, Tensor]) -> Tensor:
    return functional.embedding_bag(
        made["columns"].cpu(),
        made["rows"].cpu().double(),
        offsets=made["starts"].cpu(),
        per_sample_weights=made["weights"].cpu().double(),
        mode="sum",
    )


def assert_close(found: Tensor, wanted: Tensor) -> None:
    # Taken in fp32, or fp64, with the dtype's own rounding at the end.
    absolute = 1e-12 if found.dtype == torch.float64 else 1e-4
    relative = {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(found.dtype, 1e-5)
    torch.testing.assert_close(found.double().cpu(), wanted, atol=absolute, rtol=relative)


@pytest.mark.parametrize("long_bags", [False, True])
@pytest.mark.parametrize("width", [1, 17, 1100])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_sums_of_bags(
    triton_kernels: ModuleType, counts: list[int], width: int, long_bags: bool
) -> None:
    made = made_bags(counts, width, torch.float32)
    arguments = [made[name] for name in ("columns", "weights", "starts", "rows")]
    found = triton_kernels.bag_sums(*arguments, long_bags=long_bags)
    assert_close(found, summed(made))
    again = triton_kernels.bag_sums(*arguments, long_bags=long_bags)
    assert torch.equal(found, again)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_and_products_in_every_dtype(triton_kernels: ModuleType, dtype: torch.dtype) -> None:
    made = made_bags(COUNTS[0], 33, dtype)
    arguments = [made[name] for name in ("columns", "weights", "starts", "rows")]
    for long_bags in (False, True):
        found = triton_kernels.bag_sums(*arguments, long_bags=long_bags)
        assert found.dtype == dtype
        assert_close(found, summed(made))
    products = triton_kernels.bag_products(
        made["grad"], made["columns"], made["starts"], made["rows"]
    )
    wanted = made["grad"].double()[made["owners"]] * made["rows"].double()[made["columns"]]
    assert products.dtype == dtype
    assert_close(products, wanted.sum(1).cpu())


def test_nothing_to_sum(triton_kernels: ModuleType) -> None:
    made = made_bags([0, 0, 0], 8, torch.float32)
    arguments = [made[name] for name in ("columns", "weights", "starts", "rows")]
    assert triton_kernels.bag_sums(*arguments, long_bags=True).tolist() == [[0.0] * 8] * 3
    none = made_bags([], 8, torch.float32)
    arguments = [none[name] for name in ("columns", "weights", "starts", "rows")]
    assert triton_kernels.bag_sums(*arguments).shape == (0, 8)
    products = triton_kernels.bag_products(
        none["grad"], none["columns"], none["starts"], none["rows"]
    )
    assert products.shape == (0,)


def test_rounding_is_not_left_to_the_version_of_triton(
    triton_kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *_, **options: asked.append(options["enable_fp_fusion"])

    made = made_bags([40, 3], 8, torch.float32)
    for name in ("_bag_sums", "_piece_sums", "_bag_products"):
        monkeypatch.setattr(triton_kernels, name, Kernel())
    sums = [made[name] for name in ("columns", "weights", "starts", "rows")]
    triton_kernels.bag_sums(*sums, long_bags=True)
    triton_kernels.bag_products(made["grad"], made["columns"], made["starts"], made["rows"])
    assert asked == [True] * 3


def test_the_kernels_prove_themselves_where_they_work(triton_kernels: ModuleType) -> None:
    triton_kernels.self_test(torch.device(DEVICE))


@pytest.mark.usefixtures("by_triton")
def test_gradients_of_topk_by_finite_differences() -> None:
    torch.manual_seed(0)
    x, rows, bias = (
        torch.randn(*shape, dtype=torch.float64, device=DEVICE, requires_grad=True)
        for shape in ((4, 3), (7, 3), (7,))
    )

    def reconstruction(x: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        values, entries = encode_topk(x, rows, bias, 3)
        return decode_entries(values.flatten(), entries, rows)

    assert torch.autograd.gradcheck(reconstruction, (x, rows, bias), eps=1e-7, atol=1e-6)


@pytest.mark.usefixtures("by_triton")
def test_gradients_of_ragged_latents_by_finite_differences() -> None:
    torch.manual_seed(1)
    x, rows, bias = (
        torch.randn(*shape, dtype=torch.float64, device=DEVICE, requires_grad=True)
        for shape in ((4, 3), (7, 3), (7,))
    )

    def reconstruction(x: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        values, entries = encode_above(x, rows, bias, 0.2)
        return decode_entries(values, entries, rows)

    assert torch.autograd.gradcheck(reconstruction, (x, rows, bias), eps=1e-7, atol=1e-6)


def losses_and_gradients(sae: SparseAutoencoder, x: Tensor) -> list[Tensor]:
    context = LossContext(2.0, torch.tensor([1, 5], device=DEVICE), aux_alpha=0.1, target_l0=4.0)
    losses = list(sae.training_output(x, x, context).losses.values())
    return [*losses, *torch.autograd.grad(torch.stack(losses).sum(), list(sae.parameters()))]


@pytest.mark.parametrize("make", [lambda: TopKSae(48, 16, 4), lambda: JumpReluSae(48, 16)])
def test_a_whole_step_comes_to_the_same(
    make: Any, triton_kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = make().to(DEVICE)
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    found = {}
    for name, module in (("bags", None), ("triton", triton_kernels)):
        monkeypatch.setattr(bags, "gpu_kernels", lambda _, module=module: module)
        found[name] = losses_and_gradients(sae, x)
    for ours, theirs in zip(found["triton"], found["bags"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
