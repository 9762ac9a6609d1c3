"""Ranks without torch: who is alone, who was launched, which device is whose."""

import subprocess
import sys

import pytest

from mi_crow.errors import UserError
from mi_crow.ranks import (
    ALONE,
    is_launched,
    launched_rank,
    launched_world,
    ranks_from_environment,
    take_device,
)

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHED, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_process_that_nobody_launched_is_alone() -> None:
    assert not is_launched()
    with ranks_from_environment() as ranks:
        assert ranks is ALONE
        assert (ranks.rank, ranks.world) == (0, 1)
        ranks.wait()


def test_alone_agrees_with_itself_as_others_would_hear_it() -> None:
    assert ALONE.agree({"pair": (1, 2)}) == {"pair": [1, 2]}
    with pytest.raises(TypeError):
        ALONE.agree({1, 2})


def test_part_of_an_environment_launches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # as batch systems set it for their own reasons
    assert (is_launched(), launched_world(), launched_rank()) == (False, 1, 0)


def test_the_environment_says_who_we_are(launched: pytest.MonkeyPatch) -> None:
    assert (is_launched(), launched_world(), launched_rank()) == (True, 2, 1)


def test_alone_keeps_the_device_that_was_asked_for() -> None:
    assert take_device("cuda:3") == "cuda:3"


def test_each_rank_takes_the_gpu_with_its_number(launched: pytest.MonkeyPatch) -> None:
    import torch

    taken: list[int] = []
    launched.setattr(torch.cuda, "device_count", lambda: 2)
    launched.setattr(torch.cuda, "set_device", taken.append)
    launched.setenv("LOCAL_RANK", "1")
    assert take_device("auto") == take_device("cuda") == "cuda:1"
    assert taken == [1, 1]
    assert take_device("cpu") == "cpu"
    launched.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes need 2 GPUs, there is 1"):
        take_device("auto")


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(launched: pytest.MonkeyPatch) -> None:
    import torch

    launched.setattr(torch.cuda, "device_count", lambda: 0)
    assert take_device("auto") == "cpu"
    with pytest.raises(UserError, match="2 processes need 2 GPUs, there are none"):
        take_device("cuda")


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_one_device_is_not_for_two(launched: pytest.MonkeyPatch, device: str) -> None:
    with pytest.raises(UserError, match=f"2 processes cannot share the device '{device}'"):
        take_device(device)


def test_the_module_costs_no_torch() -> None:
    code = "import sys, mi_crow.ranks, mi_crow.jobs.runner; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
