"""The memory that a process says it uses."""

import sys
from types import SimpleNamespace

import pytest

from mi_crow import memory
from mi_crow.memory import memory_readings


def pretend_torch(monkeypatch: pytest.MonkeyPatch, now: list[int], peak: list[int]) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: len(now),
        memory_allocated=lambda gpu: now[gpu],
        max_memory_allocated=lambda gpu: peak[gpu],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_without_a_gpu_it_is_what_the_process_takes_of_the_machine():
    before = memory_readings()["memory_peak"]
    taken = bytearray(64 << 20)
    for at in range(0, len(taken), 4096):
        taken[at] = 1
    after = memory_readings()
    assert after["memory_peak"] >= after["memory"] > len(taken)
    assert after["memory_peak"] >= before
    assert "gpu_memory" not in after


def test_on_gpus_it_is_what_torch_allocated_on_all_of_them(monkeypatch):
    pretend_torch(monkeypatch, [10, 5], [30, 5])
    assert memory_readings() == {"gpu_memory": 15.0, "gpu_memory_peak": 35.0}


def test_a_gpu_that_is_only_there_does_not_count(monkeypatch):
    pretend_torch(monkeypatch, [0], [0])
    assert "gpu_memory" not in memory_readings()


def test_a_system_that_does_not_tell_gives_no_reading(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert memory_readings() == {}
