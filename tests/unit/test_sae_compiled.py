"""Whether compiled kernels work is found out once; where they do not, they are done without."""

import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mi_crow.mechanistic.sae.kernels.compiled import cpu_kernels, gpu_kernels

ROOM = "mi_crow.mechanistic.sae.kernels"
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _no_verdicts() -> Iterator[None]:
    """What was found out about kernels is forgotten before and after."""
    cpu_kernels.cache_clear()
    gpu_kernels.cache_clear()
    yield
    cpu_kernels.cache_clear()
    gpu_kernels.cache_clear()


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Pretends that there is a GPU, and kernels for it that are proven by `prove`."""

    def pretend(
        prove: Callable[[torch.device], Any], capability: tuple[int, int] = (8, 0)
    ) -> SimpleNamespace:
        kernels = SimpleNamespace(self_test=prove)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setitem(sys.modules, f"{ROOM}.triton_kernels", kernels)
        return kernels

    return pretend


def test_numba_is_proven_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[None] = []
    kernels = SimpleNamespace(self_test=lambda: tried.append(None))
    monkeypatch.setitem(sys.modules, f"{ROOM}.numba_kernels", kernels)
    assert [cpu_kernels() for _ in range(2)] == [kernels] * 2
    assert len(tried) == 1


def test_a_numba_that_cannot_be_imported_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, f"{ROOM}.numba_kernels", None)
    with caplog.at_level(logging.WARNING):
        assert [cpu_kernels() for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert record.message.startswith("no Numba, torch takes its place and more time: ")


def test_without_the_extra_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING):
        assert cpu_kernels() is None
    assert not caplog.records


def test_triton_is_proven_once_per_device(triton: Callable[..., SimpleNamespace]) -> None:
    tried: list[torch.device] = []
    kernels = triton(tried.append)
    second = torch.device("cuda", 1)
    assert [gpu_kernels(device) for device in (GPU, second, GPU)] == [kernels] * 3
    assert tried == [GPU, second]
    assert gpu_kernels(torch.device("cpu")) is None


def test_triton_that_does_not_work_is_done_without(
    triton: Callable[..., SimpleNamespace], caplog: pytest.LogCaptureFixture
) -> None:
    def prove(_: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler")

    triton(prove)
    with caplog.at_level(logging.WARNING):
        assert [gpu_kernels(GPU) for _ in range(2)] == [None, None]
    assert [record.message for record in caplog.records] == [
        "no Triton on cuda:0, embedding_bag takes its place: Failed to find C compiler"
    ]


def test_a_build_without_triton_says_nothing(
    triton: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    triton(print)
    monkeypatch.setitem(sys.modules, f"{ROOM}.triton_kernels", None)
    with caplog.at_level(logging.WARNING):
        assert gpu_kernels(GPU) is None
    assert not caplog.records


def test_a_full_gpu_is_no_verdict_on_triton(triton: Callable[..., SimpleNamespace]) -> None:
    def prove(_: torch.device) -> None:
        raise torch.OutOfMemoryError("full")

    triton(prove)
    with pytest.raises(torch.OutOfMemoryError):
        gpu_kernels(GPU)
    kernels = triton(lambda _: None)
    assert gpu_kernels(GPU) is kernels


def test_old_gpus_never_see_triton(triton: Callable[..., SimpleNamespace]) -> None:
    tried: list[torch.device] = []
    triton(tried.append, capability=(7, 0))
    assert gpu_kernels(GPU) is None
    assert not tried
