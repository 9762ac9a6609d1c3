"""How fast work goes and how long it will take: steady enough to read, quick enough to show a
slow-down."""

import math

_MEMORY_S = 10.0  # older readings hardly count
# The same of work in stages, whose shares of the time are a guess that is right on the whole.
_OF_STAGES_S = 120.0
PERCENT = "%"  # the unit that such work counts in
SILENT_S = 2.0  # after so long without a reading the time left is counted down
_SETTLES_S = 5.0  # before that a time left would be a guess
_SMOOTH_S = 20.0
_SMOOTH_SHARE = 1 / 40  # of what is left, where that is longer: an hour is not told anew by a burst
# What is told too short is counted down with this power of how much too short it is: quickly enough
# to be seen to move, slowly enough for the work to fall behind no further.
_SLOWS = 3
_MOST_RISE, _AND_S = 1.25, 10.0  # what has to be longer than by this share and so many seconds


class RateMeter:
    """The mean rate, later an exponentially weighted one; restarts when the unit changes or the
    work goes back."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._last: tuple[float, float, str] | None = None
        self._begun = 0.0

    def add(self, now: float, done: float, unit: str) -> float | None:
        """The rate after `done` units at `now` (seconds), or None while it is unknown."""
        last = self._last
        if last is None or unit != last[2] or done < last[1]:
            self._rate, self._last, self._begun = None, (now, done, unit), now
            return None
        seconds = now - last[0]
        if seconds < 0.05:  # too short to divide by; counted with the next reading
            return self._rate
        reading = (done - last[1]) / seconds
        memory = _OF_STAGES_S if unit == PERCENT else _MEMORY_S
        weight = max(1 - math.exp(-seconds / memory), seconds / (now - self._begun))
        before = self._rate or 0.0
        self._rate = before + weight * (reading - before)
        self._last = (now, done, unit)
        return self._rate


class Forecast:
    """The rate of work and the time that it has left, as it is told.

    The time left is smoothed, and does not rise: in a slower stretch it is counted down more
    slowly, as the next one may be faster. Only when it has become longer by a quarter and ten
    seconds is the longer one told: then the machine is slower, or the guess was wrong.
    """

    def __init__(self) -> None:
        self._meter = RateMeter()
        self._rate: float | None = None
        self._ticks: list[tuple[float, int]] = []  # the first whole percent, and the latest: when
        self._begun = self._at = 0.0  # seconds: when the time left was first estimated, and last
        self._estimate: float | None = None  # seconds, smoothed
        self._told: float | None = None  # as of the latest reading
        self._pace = 1.0  # seconds that a second takes off it, at most 1

    def add(
        self, now: float, done: int, total: int, unit: str
    ) -> tuple[float | None, float | None]:
        """Units per second and seconds left after `done` of `total` at `now`; None while one is
        unknown."""
        exact = self._between(now, done) if unit == PERCENT else float(done)
        rate = self._rate = self._meter.add(now, exact, unit)
        if rate is None or done >= total:  # other work begins, or none is left
            self._estimate = self._told = None
        elif rate:
            self._tell(now, (total - exact) / rate)
        return rate, self._told

    def left(self, now: float) -> float | None:
        """Seconds left at `now`: counted down while the work says nothing, and unknown once they
        are over."""
        return self._told if now - self._at < SILENT_S else self._counted_down(now)

    def _counted_down(self, now: float) -> float | None:
        if self._told is None:
            return None
        left = self._told - self._pace * (now - self._at)
        return left if left > 0 else None

    def _between(self, now: float, percent: int) -> float:
        """What is done where only whole percents are told: the next one is on its way as quickly
        as those before. How far the first had got is not known: time is measured from the second.
        """
        if not self._ticks or percent < self._ticks[-1][1]:
            self._ticks = [(now, percent)]
        elif percent > self._ticks[-1][1]:
            if len(self._ticks) == 1:
                self._meter, self._rate = RateMeter(), None
            self._ticks = [self._ticks[0], (now, percent)]
        since = now - self._ticks[-1][0]
        return percent + min(since * (self._rate or 0.0), 1.0)

    def _tell(self, now: float, reading: float) -> None:
        if self._estimate is None:
            self._estimate, self._begun, self._at = reading, now, now
        told, seconds, age = self._counted_down(now), now - self._at, now - self._begun
        if seconds > 0:
            expected = self._estimate - seconds
            smooth = max(_SMOOTH_S, _SMOOTH_SHARE * self._estimate)
            weight = max(1 - math.exp(-seconds / smooth), seconds / age)
            self._estimate = max(expected + weight * (reading - expected), 0.0)
        self._at = now
        if age < _SETTLES_S:
            return
        if told is None or self._estimate > _MOST_RISE * told + _AND_S:
            self._told = self._estimate
        else:
            self._told = min(told, self._estimate)
        self._pace = (self._told / self._estimate) ** _SLOWS if self._estimate else 1.0
