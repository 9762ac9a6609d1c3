"""The time that a job has left: it does not rise while work goes on as before, and is counted down
in silence."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from mi_crow.jobs.demo.run import STAGES, Stages
from mi_crow.jobs.rate import Forecast, RateMeter
from mi_crow.jobs.reporter import Reporter
from mi_crow.progress import NullProgress
from mi_crow.store.json_file import read_json

_STEP_S = 0.25


class Clock(NullProgress):
    """Says as a job's reporter how long it will take, by a clock that stages move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[float, float | None]] = []  # at which time, how long
        self._forecast = Forecast()

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        self.told.append((self.now, self._forecast.add(self.now, done, total, unit)[1]))

    def rest(self, seconds: float) -> None:
        """Time passes, and somebody looks."""
        self.now += seconds
        self.told.append((self.now, self._forecast.left(self.now)))

    @property
    def left(self) -> list[tuple[float, float]]:
        """Where it was known."""
        return [(now, left) for now, left in self.told if left is not None]

    def rises(self) -> list[float]:
        """By how much the time left grew, each time that it did before one's eyes."""
        told = [left for _, left in self.told]
        pairs = [(a, b) for a, b in pairwise(told) if a is not None and b is not None]
        return [after - before for before, after in pairs if after > before]


def run(clock: Clock, slowness: Mapping[str, float], over: int = 0, part: float = 0.0) -> None:
    """The demo, each of its stages as much slower than on two cores; of some only that they are
    over, and a `part` of the next one."""
    stages = Stages(clock)
    for number, (name, time_of) in enumerate(STAGES.items()):
        done = part if number == over else 0.0
        stage = stages.enter(name, is_over=number < over, is_begun=done > 0)
        if number < over:
            stage.update(1, 1, "step")
            clock.now += 0.1
            continue
        seconds = time_of.seconds * slowness.get(name, 1.0)
        reported = seconds * time_of.reported
        for step in range(int(done * reported / _STEP_S), int(seconds / _STEP_S)):
            clock.rest(_STEP_S)
            if step * _STEP_S >= reported:
                continue
            if time_of.steps is None:
                stage.update(step, int(reported / _STEP_S), "step")
            elif int(step / reported * _STEP_S * time_of.steps) > int(
                (step - 1) / reported * _STEP_S * time_of.steps
            ):
                stage.update(int(step / reported * _STEP_S * time_of.steps), 40, "try")


@pytest.mark.parametrize(("over", "part"), [(0, 0.0), (0, 0.7), (1, 0.9), (2, 0.0)])
@pytest.mark.parametrize(
    "slowness",
    [
        {},
        {"train": 1.3, "index": 0.8},
        {"evaluate": 1.4, "topics": 0.7, "steer": 1.2},
        dict.fromkeys(STAGES, 3),
    ],
)
def test_the_time_that_the_demo_has_left_does_not_rise(
    slowness: dict[str, float], over: int, part: float
) -> None:
    clock = Clock()
    run(clock, slowness, over, part)
    whole = clock.now
    assert clock.rises() == []
    assert clock.left[0][0] < 15
    for now, left in clock.left:
        if now > whole / 8:
            assert left == pytest.approx(whole - now, abs=0.27 * whole)


def test_a_machine_that_becomes_slower_is_told_at_once_and_then_no_more() -> None:
    """Work of 400 s, of which the second half takes three times as long."""
    clock = Clock()
    for step in range(1600):
        clock.now += _STEP_S if step < 800 else 3 * _STEP_S
        clock.update(step, 1600, "token")
    slow = [(now, left) for now, left in clock.left if now > 260]
    assert max(left for _, left in slow) > 400  # it will be 540 s, at 260
    assert len(clock.rises()) <= 5  # and not at each of 800 readings
    assert all(left == pytest.approx(800 - now, rel=0.25, abs=5) for now, left in slow[60:])


def test_the_time_left_of_long_work_that_slows_down_goes_down_all_the_time() -> None:
    """Three hours of work, in which its rate falls to half."""
    clock, done = Clock(), 0.0
    while done < 8_000_000:
        clock.now += 2
        done += 2 * (1000 - done / 16_000)
        clock.update(int(done), 8_000_000, "token")
    assert clock.rises() == []
    told = [(now, left // 60) for now, left in clock.left]
    changed = [now for (_, before), (now, after) in pairwise(told) if after != before]
    assert max(after - before for before, after in pairwise(changed)) < 120
    for now, left in clock.left:
        assert left == pytest.approx(clock.now - now, rel=0.35, abs=30)


def test_a_burst_does_not_tell_long_work_anew() -> None:
    """Three hours of work, of which one half minute is ten times as fast."""
    clock, done = Clock(), 0
    while done < 10_000:
        clock.now += 2
        done += 20 if 3000 < clock.now < 3030 else 2
        clock.update(done, 10_000, "token")
    falls = [(a - b) - (now - then) for (then, a), (now, b) in pairwise(clock.left)]
    assert max(falls) < 120
    assert clock.rises() == []


def test_no_time_left_is_told_of_the_first_seconds_of_any_part() -> None:
    forecast = Forecast()

    def told(start: float, unit: str) -> list[float | None]:
        return [forecast.add(start + n, 1 + n, 100, unit)[1] for n in range(8)]

    for start, unit in ((0.0, "token"), (50.0, "feature")):
        found = told(start, unit)
        assert found[:6] == [None] * 6
        assert found[7] == pytest.approx(92, abs=2)
    assert forecast.add(60.0, 100, 100, "feature")[1] is None
    assert forecast.left(60.0) is None


def test_the_first_readings_of_a_rate_weigh_as_much_as_the_next() -> None:
    meter = RateMeter()
    assert meter.add(0.0, 0, "token") is None
    assert meter.add(2.0, 0, "token") == 0
    assert meter.add(4.0, 40, "token") == pytest.approx(10)


def test_while_the_work_is_silent_the_time_left_is_counted_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mi_crow.jobs.reporter.time.monotonic", lambda: now[0])
    reporter = Reporter(tmp_path, 1)

    def told() -> float | None:
        reporter._write_status()
        return read_json(tmp_path / "status.json")["eta_s"]

    for step in range(11):
        now[0] = 100.0 + step
        reporter.update(step, 40, "MB")
    assert told() == pytest.approx(30, abs=0.1)
    now[0] += 12
    assert told() == pytest.approx(18, abs=0.1)
    now[0] += 19
    assert told() is None
    reporter.update(12, 40, "MB")
    assert told() is not None
