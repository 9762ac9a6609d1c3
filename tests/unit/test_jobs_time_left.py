"""The time that a job has left: steady through stages, and counted down in silence."""

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from mi_crow.jobs.demo.run import STAGES, Stages
from mi_crow.jobs.rate import RateMeter
from mi_crow.jobs.reporter import Reporter
from mi_crow.progress import NullProgress
from mi_crow.store.json_file import read_json

_STEP_S = 0.25


class Clock(NullProgress):
    """Says as a job's reporter how long it will take, by a clock that stages move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left: list[tuple[float, float]] = []  # at which time, how long
        self._rate = RateMeter()

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        rate = self._rate.add(self.now, done, unit)
        if rate:
            self.left.append((self.now, (total - done) / rate))


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
            clock.now += _STEP_S
            if step * _STEP_S < reported:
                stage.update(step, int(reported / _STEP_S), "step")


def rises(clock: Clock) -> Iterator[float]:
    """By how much the time left grew from one telling to the next, ten seconds after the first."""
    begun = clock.left[0][0] + 10
    told = [left for now, left in clock.left if now > begun]
    return (after - before for before, after in pairwise(told))


@pytest.mark.parametrize(("over", "part"), [(0, 0.0), (0, 0.7), (1, 0.9), (2, 0.0)])
@pytest.mark.parametrize("slowness", [{}, {"train": 1.3, "index": 0.8}, dict.fromkeys(STAGES, 3)])
def test_the_demo_tells_the_time_left_without_jumps(
    slowness: dict[str, float], over: int, part: float
) -> None:
    clock = Clock()
    run(clock, slowness, over, part)
    whole = clock.now
    assert max(rises(clock)) < 0.04 * whole
    for now, left in clock.left:
        if now > whole / 8:
            assert left == pytest.approx(whole - now, abs=0.27 * whole)


def test_the_first_readings_of_a_rate_weigh_as_much_as_the_next() -> None:
    meter = RateMeter()
    assert meter.add(0.0, 0, "token") is None
    assert meter.add(2.0, 0, "token") == 0
    assert meter.add(4.0, 40, "token") == pytest.approx(10)


def test_while_the_work_is_silent_the_time_left_is_counted_down(tmp_path: Path) -> None:
    def told(silent: float) -> float | None:
        reporter._read_at = time.monotonic() - silent
        reporter._write_status()
        return read_json(tmp_path / "status.json")["eta_s"]

    reporter = Reporter(tmp_path, 1)
    reporter.update(1, 2, "MB")
    reporter._status["eta_s"] = 30.0
    assert told(12) == pytest.approx(18, abs=0.5)
    assert told(31) is None
    assert told(0) == pytest.approx(30, abs=0.5)
