"""How many lines the parts of Steer are given, so that none is empty while another is cut; pure."""

from tui.screens.steer.writing import Plan

_LEAST_TOP = 7  # the prompt, its settings, and a few interventions
_SETTINGS = 2  # lines below the prompt
_HEADING = 1  # lines over the stack
_MOST_SPARE = 3  # lines below a text that are not taken back, so that little moves


def top_lines(screen: int, interventions: int, prompt: int) -> int:
    """Of a tall screen the lines for what is asked and changed: what they need, at most about a
    fifth. `prompt`: lines of the wrapped prompt."""
    needed = max(interventions + _HEADING + 1, prompt + _SETTINGS + 1, _LEAST_TOP)
    return min(needed, screen // 5 + 1)


def expected_lines(plan: Plan | None, heard: str, width: int) -> int:
    """The lines that texts are expected to need on each side of `width` cells, with what is over
    and below them. `heard` is what they continue."""
    times = 1
    if plan is not None:
        tokens = plan.settings.max_new_tokens
        heard += " " * (5 * tokens)
        if plan.chat is not None:  # which often answers in lists
            heard += "\n" * (tokens // 16)
        times = len(plan.stacks)
    lines = sum(len(line) // width + 1 for line in heard.split("\n")) + 3 if heard else 0
    return 4 + max(times * lines, 4)


def fitted_lines(now: int, needed: int) -> int:
    """The lines of whole texts that have `now` and need `needed`."""
    return now if needed <= now <= needed + _MOST_SPARE else needed + 1
