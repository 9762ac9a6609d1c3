"""Jobs on one device stand in line, oldest first, whoever started them from where."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.errors import MiCrowError
from mi_crow.jobs.device_lock import DeviceQueue, device_key, queue_folder
from tests.jobs_fixture import own_queues


@pytest.fixture(autouse=True)
def _own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_queues(tmp_path, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def queue(created: float, job: str = "job", device: str = "cpu") -> DeviceQueue:
    place = DeviceQueue(device, created, job)
    place.join()
    return place


def test_the_oldest_enters_first_and_the_rest_follow_in_order() -> None:
    young, old, middle = queue(3.0, "y"), queue(1.0, "o"), queue(2.0, "m")
    assert not young.try_enter()
    assert young.ahead() == 2
    assert old.try_enter()
    assert not middle.try_enter()
    old.leave()
    assert not young.try_enter()
    assert middle.try_enter()
    middle.leave()
    assert young.try_enter()
    young.leave()


def test_who_runs_is_not_pushed_out_by_somebody_older() -> None:
    running, older = queue(2.0), queue(1.0)
    assert older.try_enter()
    assert not running.try_enter()
    assert older.try_enter()
    older.leave()
    running.leave()


def test_devices_do_not_wait_for_each_other() -> None:
    first, second = queue(1.0, device="cuda:0"), queue(2.0, device="cuda:1")
    assert first.try_enter()
    assert second.try_enter()
    first.leave()
    second.leave()


def test_the_ticket_of_a_dead_process_holds_nobody_up() -> None:
    folder = queue_folder("cpu")
    stale = folder / "ticket-00000000000000000001-1-dead"
    stale.touch()
    place = queue(5.0)
    assert place.try_enter()
    assert not stale.exists()
    place.leave()
    assert not list(folder.glob("ticket-*"))


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)))
def test_any_order_of_arrival_is_served_by_age(arrivals: list[int]) -> None:
    waiting = {age: queue(float(age + 1), f"job-{age}") for age in arrivals}
    served = []
    while waiting:
        entered = [age for age in arrivals if age in waiting and waiting[age].try_enter()]
        assert len(entered) == 1
        served += entered
        waiting.pop(entered[0]).leave()
    assert served == sorted(arrivals)


def test_device_names_mean_real_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_key("cuda") == device_key("cuda:0") == "cuda-0"
    assert device_key("cpu") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-ab/cd")
    assert device_key("cuda") == "cuda-3"
    assert device_key("cuda:1") == "cuda-GPU-ab-cd"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_key("auto") != "cuda-0"


def test_a_queue_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "xdg_runtime_dir" / "mi-crow"
    base.symlink_to(tmp_path)
    with pytest.raises(MiCrowError, match="somebody else"):
        queue_folder("cpu")
