"""What the detail panes of runs, SAEs and jobs share, and what they say about what cannot be read;
pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from textual.content import Content

from mi_crow.memory import READINGS
from mi_crow.store.unreadable import Unreadable
from tui.preferences.key_words import key
from tui.text import count, number, printable, size
from tui.widgets.facts import Fact, beside, blocks, facts_content

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Unfinished

_NAMES: Final = 18  # cells of the names of settings, at least
_LARGE: Final = 57  # lines of a pane from which charts grow
_LINES_A_CHART: Final = 8  # more lines of the pane for one more of each chart
TWO_COLUMNS: Final = 100  # cells of a pane
NARROW_COLUMNS: Final = 68  # cells from which short settings are in two columns


def unreadable_detail(found: Unreadable) -> Content:
    """Why a run or an SAE cannot be read."""
    title = heading(found.name, f"{found.what} · unreadable")
    return blocks(title, Content.styled(printable(found.reason), "$error"))


def unfinished_detail(unfinished: "Unfinished", jobs: "Sequence[JobState]", width: int) -> Content:
    """What an unfinished run or SAE is, and the jobs (newest last) that can finish it."""
    kind = {"run": "capture", "SAE": "train"}[unfinished.what]
    can = [
        job.job_id
        for job in jobs
        if job.kind == kind and job.resumable and unfinished.name in (job.output, job.name)
    ]
    facts = [
        Fact("size", size(unfinished.bytes)),
        Fact(
            "next",
            f"{key('runs.resume')} on job {can[-1]} resumes it"
            if can
            else f"no job can finish it; {key('runs.remove')} removes it",
        ),
    ]
    title = heading(unfinished.name, f"{unfinished.what} · unfinished")
    return blocks(title, facts_content(facts, 11, width))


def settings(values: Mapping[str, Any], width: int, two_from: int = TWO_COLUMNS) -> Content:
    """The settings of a training or a job, in two columns from a width on."""
    return facts_in_columns(plain_facts(values), width, two_from)


def facts_in_columns(facts: Sequence[Fact], width: int, two_from: int = TWO_COLUMNS) -> Content:
    """Facts in two columns of about as many lines where there is room; what has no room in a column
    is above them."""
    names = max([_NAMES, *(len(fact.name) + 2 for fact in facts)])
    if width < two_from or len(facts) < 2:
        return facts_content(facts, min(names, width // 2), width)
    half = width // 2
    names = min(names, half // 2)
    long = [one for one in facts if _is_long(one, half - 2 - names, width - names)]
    if long:
        short = [one for one in facts if one not in long]
        above = facts_content(long, names, width)
        below = facts_in_columns(short, width, two_from)
        return Content("\n").join([above, below]) if short else above
    halves = [
        (facts_content(facts[:at], names, half - 2), facts_content(facts[at:], names, half - 2))
        for at in range(1, len(facts))
    ]
    first, second = min(halves, key=lambda two: max(len(one.plain.splitlines()) for one in two))
    return beside(first, second, width)


def _is_long(fact: Fact, room: int, whole: int) -> bool:
    """Whether a value, as a path, has one line across both columns and several in one."""
    return room < len(fact.value) <= whole


def chart_lines(height: int, least: int) -> int:
    """The lines of a chart in a pane of `height` lines: some more on a large terminal."""
    return least + max(height - _LARGE, 0) // _LINES_A_CHART


def note_facts(note: str) -> list[Fact]:
    """The note that somebody wrote, if there is one."""
    return [Fact("note", printable(note), "$accent")] if note else []


def metric(name: str, value: float) -> str:
    """One metric as people write it: shares in percent, rates as counts, memory with its unit."""
    if name in READINGS:
        return size(value)
    if name.endswith("_share"):
        return f"{100 * value:.1f}%"
    if name.endswith("_s"):
        return count(value)
    return number(value, 1 if name == "l0" else 3)


def plain_facts(values: Mapping[str, Any]) -> list[Fact]:
    """JSON values, one per line, with words for names; unset values are left out. Nested objects
    are flattened: what they say as the outer one does is said once, and what they say differently
    has their name."""
    facts: list[Fact] = []
    known = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    for raw, value in values.items():
        name = raw.replace("_", " ")
        if isinstance(value, Mapping):
            inner = {one: it for one, it in value.items() if one not in known or known[one] != it}
            for fact in plain_facts(inner):
                taken = fact.name in {one.replace("_", " ") for one in known}
                own = f"{printable(name)} {fact.name}" if taken else fact.name
                facts.append(Fact(own, fact.value))
        elif value is None or value == "" or value == [] or value is False:
            continue
        elif isinstance(value, list):
            if all(isinstance(item, str | int | float) for item in value):
                facts.append(Fact(printable(name), printable(", ".join(map(str, value)))))
        elif isinstance(value, float):
            facts.append(Fact(printable(name), f"{value:.4g}"))
        else:
            said = "yes" if value is True else str(value)
            facts.append(Fact(printable(name), printable(said)))
    return facts


def heading(title: str, line: str) -> Content:
    """The first lines of a pane: the name, and what it is."""
    return Content.assemble((printable(title), "bold $foreground"), "\n", (line, "$muted"))
