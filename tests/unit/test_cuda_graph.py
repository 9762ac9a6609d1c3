"""A capture leaves CUDA as it found it, also one that fails: the device, the stream, the memory.

CUDA is stood in for by what PyTorch to 2.11 does of it; tests marked `gpu` use a real one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from mi_crow.language_model.decoding import one_token
from mi_crow.language_model.decoding.one_token import capture

SECOND, POOL = torch.device("cuda", 1), (0, 7)


@dataclass(eq=False)
class Cuda:
    """Two GPUs, the first of which is the current one."""

    device: int = 0
    streams: list[str] = field(default_factory=lambda: ["default 0", "default 1"])
    recording: list[tuple[int, Any]] = field(default_factory=list)
    released: list[tuple[int, Any]] = field(default_factory=list)
    made: int = 0  # streams
    is_valid: bool = True  # until something is captured that cannot be
    is_left: bool = True  # the memory of a capture that is not valid, as by PyTorch to 2.11

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        before, self.device = self.device, device.index
        try:
            yield
        finally:
            self.device = before

    def stream(self, device: torch.device) -> str:
        self.made += 1
        return f"another {device.index}"

    def set_stream(self, stream: str) -> None:
        self.device = int(stream.split()[1])
        self.streams[self.device] = stream

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: str, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        before = self.streams[self.device]
        self.set_stream(stream)
        self.recording.append((self.device, pool))
        try:
            yield
        finally:
            if self.is_valid or not self.is_left:
                self.end_recording(self.device, pool)
            if not self.is_valid:
                raise RuntimeError("operation failed due to a previous error during capture")
            self.set_stream(before)

    def end_recording(self, device: int, pool: Any) -> None:
        if (device, pool) not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove((device, pool))

    def release(self, device: int, pool: Any) -> None:
        self.released.append((device, pool))


class Graph:
    def replay(self) -> str:
        return "replayed"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    made = Cuda()
    one_token._capturing.cache_clear()
    for name, stand_in in {
        "CUDAGraph": Graph,
        "graph_pool_handle": lambda: POOL,
        "device": made.on,
        "current_device": lambda: made.device,
        "current_stream": lambda device: made.streams[device.index],
        "set_stream": made.set_stream,
        "Stream": made.stream,
        "graph": made.graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.end_recording, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", made.release, raising=False)
    yield made
    one_token._capturing.cache_clear()


def refused(cuda: Cuda) -> Callable[[], None]:
    """Something that cannot be captured, as a look at a value."""

    def run() -> None:
        cuda.is_valid = False
        raise RuntimeError("operation not permitted when stream is capturing")

    return run


def check_as_before(cuda: Cuda) -> None:
    assert (cuda.device, cuda.streams) == (0, ["default 0", "default 1"])
    assert not cuda.recording


def test_a_capture_on_another_gpu_leaves_the_current_one_as_it_is(cuda: Cuda) -> None:
    seen: list[tuple[int, str]] = []
    replay: Any = capture(lambda: seen.append((cuda.device, cuda.streams[1])), SECOND)
    assert seen == [(1, "another 1")]
    assert replay() == "replayed"
    check_as_before(cuda)
    assert not cuda.released  # the graph's memory is the graph's


def test_all_captures_on_a_gpu_share_a_stream(cuda: Cuda) -> None:
    """cuBLAS keeps memory for each that it has worked on."""
    for _ in range(3):
        capture(lambda: None, SECOND)
    assert cuda.made == 1
    capture(lambda: None, torch.device("cuda", 0))
    assert cuda.made == 2


def test_a_capture_that_fails_gives_its_memory_back(cuda: Cuda) -> None:
    with pytest.raises(RuntimeError, match="during capture"):
        capture(refused(cuda), SECOND)
    check_as_before(cuda)
    assert cuda.released == [(1, POOL)]


def test_memory_that_pytorch_gave_back_itself_is_left_to_it(cuda: Cuda) -> None:
    cuda.is_left = False
    with pytest.raises(RuntimeError, match="during capture"):
        capture(refused(cuda), SECOND)
    check_as_before(cuda)
    assert not cuda.released


def test_memory_that_is_full_is_told_as_that(cuda: Cuda) -> None:
    def run() -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        capture(run, SECOND)
    check_as_before(cuda)
    assert not cuda.released


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_after_a_failed_capture_memory_still_goes_back_to_the_gpu() -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    one, stream = torch.zeros(1, device=device), torch.cuda.Stream(device)
    current, looked_at = torch.cuda.current_device(), list[float]()
    with pytest.raises(RuntimeError):
        capture(lambda: looked_at.append(one.item()), device)
    assert torch.cuda.current_device() == current
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    large = torch.zeros(1 << 26, device=device)
    large.record_stream(stream)  # nothing is done with such memory while a capture goes on
    del large
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) <= before

    def add() -> None:
        one.add_(1)

    replay = capture(add, device)
    replay()
    assert one.item() == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_capture_after_another_takes_no_more_memory() -> None:
    device = torch.device("cuda")
    factor, found = torch.ones(256, 256, device=device), list[int]()
    out = factor @ factor

    def multiply() -> None:
        torch.mm(factor, factor, out=out)

    for _ in range(40):
        capture(multiply, torch.device("cuda", torch.cuda.current_device()))()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        found.append(torch.cuda.memory_reserved(device))
    assert found[-1] == found[1]
