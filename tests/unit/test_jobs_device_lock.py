"""Jobs on one device stand in line, oldest first, whoever started them from where."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.errors import MiCrowError
from mi_crow.jobs import device_lock
from mi_crow.jobs.device_lock import DeviceQueue, device_key, devices_of, queue_folder
from mi_crow.jobs.process import is_locked
from tests.helpers.jobs_fixture import own_queues


@pytest.fixture(autouse=True)
def _own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_queues(tmp_path, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def queue(created: float, job: str = "job", *devices: str) -> DeviceQueue:
    place = DeviceQueue(devices or ("cpu",), created, job)
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
    first, second = queue(1.0, "a", "cuda:0"), queue(2.0, "b", "cuda:1")
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


def test_a_job_on_two_devices_takes_both_or_none() -> None:
    single = queue(1.0, "single", "cuda:1")
    assert single.try_enter()
    double = queue(2.0, "double", "cuda:0", "cuda:1")
    assert not double.try_enter()
    assert not is_locked(queue_folder("cuda:0") / "lock")
    young = queue(3.0, "young", "cuda:0")
    assert not young.try_enter()  # it would keep the older one waiting
    single.leave()
    assert double.try_enter()
    assert is_locked(queue_folder("cuda:0") / "lock")
    assert is_locked(queue_folder("cuda:1") / "lock")
    double.leave()
    assert young.try_enter()
    young.leave()


def test_a_resumed_older_job_and_one_that_runs_do_not_block_each_other() -> None:
    running = queue(5.0, "running", "cuda:0")
    assert running.try_enter()
    young = queue(6.0, "young", "cuda:0", "cuda:1")
    assert not young.try_enter()
    old = queue(1.0, "old", "cuda:1", "cuda:0")
    running.leave()
    assert not young.try_enter()
    assert young.ahead() == 1
    assert old.try_enter()
    old.leave()
    assert young.try_enter()
    young.leave()


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sets(st.integers(0, 2), min_size=1)), min_size=1, max_size=6
    ),
    st.lists(st.tuples(st.sampled_from(["arrive", "try", "end"]), st.integers(0, 5)), max_size=20),
)
def test_no_order_of_arrival_on_several_devices_ends_in_a_standstill(
    jobs: list[tuple[int, set[int]]], moves: list[tuple[str, int]]
) -> None:
    """Jobs (age, devices) arrive, try and end in any order; in the end all have run."""
    coming = list(enumerate(jobs))
    waiting: dict[int, DeviceQueue] = {}
    running: dict[int, DeviceQueue] = {}

    def move(action: str, which: int) -> None:
        if action == "arrive" and coming:
            number, (age, devices) = coming.pop(which % len(coming))
            names = [f"cuda:{n}" for n in sorted(devices, key=lambda n: (n + which) % 3)]
            waiting[number] = queue(float(age), f"job-{number}", *names)
        elif action == "try" and waiting:
            number = sorted(waiting)[which % len(waiting)]
            if waiting[number].try_enter():
                assert not any(jobs[number][1] & jobs[other][1] for other in running)
                running[number] = waiting.pop(number)
        elif action == "end" and running:
            running.pop(sorted(running)[which % len(running)]).leave()

    for action, which in moves:
        move(action, which)
    for _ in jobs:
        move("arrive", 0)
    for _ in jobs:  # each round serves at least the oldest that waits
        for which in range(len(running)):
            move("end", which)
        for number in list(waiting):
            move("try", sorted(waiting).index(number))
    assert not waiting
    for place in running.values():
        place.leave()


def test_processes_take_a_gpu_each_and_share_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cuda", 3) == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cuda:2", 1) == ["cuda:2"]
    assert devices_of("cpu", 4) == ["cpu"]
    monkeypatch.setattr(device_lock, "_has_gpu", lambda: True)
    assert devices_of("auto", 2) == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(device_lock, "_has_gpu", lambda: False)
    assert devices_of("auto", 2) == ["cpu"]
    assert devices_of("auto", 1) == ["auto"]


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


def test_who_waits_learns_who_holds_the_device_and_where(tmp_path):
    first = DeviceQueue(("cpu",), 1.0, "a-job", tmp_path / "one")
    assert first.holder() == ""
    first.join()
    assert first.try_enter()
    beside = DeviceQueue(("cpu",), 2.0, "other", tmp_path / "one")
    elsewhere = DeviceQueue(("cpu",), 3.0, "third", tmp_path / "two")
    assert beside.holder() == "a-job"
    assert elsewhere.holder() == f"a-job in workspace {tmp_path / 'one'}"
    (queue_folder("cpu") / "lock").write_text("[1, torn")
    assert elsewhere.holder() == ""
    first.leave()
    assert beside.holder() == ""
