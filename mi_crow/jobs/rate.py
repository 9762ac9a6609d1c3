"""Units per second, smoothed: steady enough to read, quick enough to show a slow-down."""

import math

_MEMORY_S = 10.0  # older readings hardly count


class RateMeter:
    """Exponentially weighted rate; restarts when the unit changes or the work goes back."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._last: tuple[float, int, str] | None = None

    def add(self, now: float, done: int, unit: str) -> float | None:
        """The rate after `done` units at `now` (seconds), or None while it is unknown."""
        last = self._last
        if last is None or unit != last[2] or done < last[1]:
            self._rate, self._last = None, (now, done, unit)
            return None
        seconds = now - last[0]
        if seconds < 0.05:  # too short to divide by; counted with the next reading
            return self._rate
        reading = (done - last[1]) / seconds
        weight = 1.0 if self._rate is None else 1 - math.exp(-seconds / _MEMORY_S)
        self._rate = reading if self._rate is None else self._rate + weight * (reading - self._rate)
        self._last = (now, done, unit)
        return self._rate
