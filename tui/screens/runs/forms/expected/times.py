"""How long a job will take, from what jobs like it took here; never a guess."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from statistics import median
from typing import TYPE_CHECKING, Any

from tui.text import duration

if TYPE_CHECKING:
    from mi_crow.jobs import JobState

_ALIKE = 2.0  # work of up to so many times a size takes about so many times as long

Measured = tuple[float, float]
"""An amount of work and the seconds that it took."""


def starts_of(jobs: "Iterable[JobState]", kind: str, model: str | None = None) -> list[float]:
    """Seconds of finished jobs (of a `model`) before and after the work that they measured: most go
    into starting Python and loading the model."""
    found = []
    for job in jobs:
        if job.kind != kind or job.status != "finished" or not job.started or not job.ended:
            continue
        worked = positive(job.result or {}, "seconds")
        if worked and (model is None or _model(job) == model):
            found.append(max(job.ended - job.started - worked, 0.0))
    return found


def _model(job: "JobState") -> object:
    spec = job.params.get("model")
    return spec.get("model") if isinstance(spec, Mapping) else None


def time_of(
    work: float,
    done: Iterable[Measured],
    what: str,
    of: str = "",
    *,
    starts: Sequence[float] = (),
    fixed: bool = False,
) -> str:
    """How long it takes at the speed of what was done before, of that which was most like it in
    size; says what that was. `starts`: what such jobs took beside it. `fixed`: some of the work is
    the same at any size, so that smaller work of before bounds larger work, and the reverse."""
    known = [(amount, seconds) for amount, seconds in done if amount > 0 and seconds > 0]
    if not known:
        return f"time not known before a first {what}{of} here"
    nearest = min(abs(log(work / amount)) for amount, _ in known)
    alike = [one for one in known if abs(log(work / one[0])) <= nearest + log(_ALIKE)]
    expected = work / median(amount / seconds for amount, seconds in alike)
    expected += median(starts) if starts else 0.0
    factor = work / median(amount for amount, _ in alike)
    bound = "at most" if factor > _ALIKE else "at least" if factor < 1 / _ALIKE else "about"
    measured = f"{len(alike)} {what}{'' if len(alike) == 1 else 's'}{of}"
    return f"{bound if fixed else 'about'} {duration(expected)}, as measured on {measured}"


def positive(values: Mapping[str, Any], name: str) -> float | None:
    """A number above 0 of a result; None for anything else."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return float(value)
