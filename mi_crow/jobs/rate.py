"""Units per second, smoothed: steady enough to read, quick enough to show a slow-down."""

import math

_MEMORY_S = 10.0  # older readings hardly count
# The same of work in stages, whose shares of the time are a guess that is right on the whole.
_OF_STAGES_S = 60.0
PERCENT = "%"  # the unit that such work counts in


class RateMeter:
    """The mean rate, later an exponentially weighted one; restarts when the unit changes or the
    work goes back."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._last: tuple[float, int, str] | None = None
        self._begun = 0.0

    def add(self, now: float, done: int, unit: str) -> float | None:
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
