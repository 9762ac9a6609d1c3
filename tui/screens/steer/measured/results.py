"""What measurements of steering say: rows, a chart, the figures of the stack that wrote; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.content import Content

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.arms import kinds_beside
from mi_crow.mechanistic.steering.measure.results import by_pattern
from tui.screens.steer.constraint import Constraint
from tui.screens.steer.stack import stack_text
from tui.text import number, printable
from tui.widgets.lists.row_list import Cell, Column, Row
from tui.widgets.plot import Axis, Mark, chart

_RATED = Column("rated", 5, "right")
ARM_COLUMNS = (
    Column("setting"),
    Column("hits", 5, "right"),
    Column("random", 6, "right"),
    Column("ppl ×", 5, "right"),
    Column("× random", 8, "right", from_width=70),
    Column("KL", 5, "right", from_width=62),
    Column("KL random", 9, "right", from_width=100),
    Column("repeats", 7, "right", from_width=110),
    Column("distinct-2", 10, "right", from_width=120),
    Column("loss +", 6, "right", from_width=90),
)
MEASUREMENT_COLUMNS = (
    Column("measured"),
    Column("best", 24, from_width=84),
    Column("hits", 5, "right"),
    Column("random", 6, "right"),
    Column("ppl ×", 5, "right"),
    Column("SAE", 16, from_width=96),
    Column("when", 16, from_width=66),
)


@dataclass(frozen=True)
class Measured:
    """One finished measurement."""

    name: str
    kind: str  # sweep | auto
    updated: float
    result: Mapping[str, Any]
    interventions: tuple[Mapping[str, Any], ...] = ()  # of the stack that was swept

    @property
    def arms(self) -> list[Mapping[str, Any]]:
        return [one for one in self.result.get("arms") or () if isinstance(one, Mapping)]

    @property
    def sae_id(self) -> str:
        return str(self.result.get("sae_id") or "")

    @property
    def best(self) -> str:
        """The name of the arm that was chosen; empty where all cost too much."""
        if self.kind == "auto":
            return str(self.arms[0]["name"]) if self.arms else ""
        return str(self.result.get("best") or "")

    @property
    def limit(self) -> float | None:
        return figure(self.result, "most_ratio")

    @property
    def rated(self) -> bool:
        """Whether a chat model rated the texts."""
        return bool(self.arms) and all("overall" in one for one in self.arms)

    def control_of(self, arm: Mapping[str, Any]) -> list[str]:
        """What was steered beside the targets of an arm: `feature`, `direction`, `neuron`."""
        return kinds_beside(arm, self.result.get("control_targets") or {})


def figure(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def share_text(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def arm_stack(one: Mapping[str, Any], sae_id: str) -> tuple[Intervention, ...] | None:
    """The stack of an arm, its features those of the measured SAE; None where it cannot be read."""
    try:
        return tuple(
            Intervention.from_json(held).in_sae(sae_id) for held in one.get("interventions") or ()
        )
    except (MiCrowError, TypeError):
        return None


def arm_constraint(one: Mapping[str, Any]) -> Constraint:
    return Constraint(figure(one, "plausible"), figure(one, "kl_budget"))


def arm_columns(found: Measured) -> tuple[Column, ...]:
    """What the table of arms says; with the ratings where a chat model gave some."""
    return (ARM_COLUMNS[0], _RATED, *ARM_COLUMNS[1:]) if found.rated else ARM_COLUMNS


def arm_rows(found: Measured) -> list[Row]:
    """The arms, with ★ at the best and ● at those that no other beats in hits and perplexity."""
    rows = []
    for place, one in enumerate(found.arms):
        best = bool(found.best) and one.get("name") == found.best
        sign = "★ " if best else "● " if one.get("front") else "  "
        recipe = f"{one['recipe']}: " if one.get("recipe") else ""
        random = one.get("random") if isinstance(one.get("random"), Mapping) else {}
        ratio = figure(one, "perplexity_ratio")
        dear = ratio is not None and found.limit is not None and ratio > found.limit
        name = printable(f"{sign}{recipe}{one.get('name', '')}")
        style = "bold $success" if best else "" if not dear else "$muted"
        assert isinstance(random, Mapping)
        cells = (
            Cell(name, style),
            *((Cell(number(figure(one, "overall"), 2), "bold"),) if found.rated else ()),
            Cell(share_text(figure(one, "share")), "bold $accent"),
            Cell(share_text(figure(one, "share_random")), "$muted"),
            Cell(number(ratio, 2), "$warning" if dear else ""),
            Cell(number(figure(random, "perplexity_ratio"), 2), "$muted"),
            Cell(number(figure(one, "kl"), 2)),
            Cell(number(figure(random, "kl"), 2), "$muted"),
            Cell(number(figure(one, "repetition"), 2)),
            Cell(number(figure(one, "distinct_2"), 2)),
            Cell(number(figure(one, "ce_added"), 2)),
        )
        rows.append(Row(str(place), cells))
    return rows


def arm_chart(found: Measured, cursor: int | None, width: int, height: int) -> list[Content]:
    """Hits against the ratio of perplexities: ◆ the arm under the cursor, ★ the best, ● the front,
    · the others, ○ the random targets beside them."""
    marks: list[Mark] = []
    for place, one in enumerate(found.arms):
        share, ratio = figure(one, "share"), figure(one, "perplexity_ratio")
        random = one.get("random")
        if isinstance(random, Mapping):
            beside = figure(random, "perplexity_ratio"), figure(random, "share")
            if None not in beside:
                marks.insert(0, Mark((beside[0] or 0, 100 * (beside[1] or 0)), "○", "$muted"))
        if share is None or ratio is None:
            continue
        best = one.get("name") == found.best
        sign = "◆" if place == cursor else "★" if best else "●" if one.get("front") else "·"
        style = "bold $accent" if place == cursor else "$success" if best else "$chart"
        marks.append(Mark((ratio, 100 * share), sign, style))
    marks.sort(key=lambda mark: mark.sign == "◆")
    least = min((mark.point[0] for mark in marks), default=1.0)
    x = Axis("perplexity against the baseline's", partial(number, digits=2), min(least, 1.0))
    y = Axis("hits", lambda value: f"{value:.0f}%", 0.0, 100.0)
    lines = chart(x, y, width, height, [], marks)
    if not lines:
        return []
    kinds = dict.fromkeys(kind for one in found.arms for kind in found.control_of(one))
    legend = "  ◆ here  ★ best  ● front"
    if kinds and any(mark.sign == "○" for mark in marks):
        legend += f"  ○ random {' and '.join(f'{kind}s' for kind in kinds)}"
    return [Content.assemble(("Hits", "bold $primary"), (legend, "$muted")), *lines]


def told(found: Measured) -> str:
    """What the figures are of, in one line."""
    result = found.result
    matches = by_pattern(result)
    parts = [f"hits: {result.get('judge', '')}" + ("" if matches else ", by words")]
    if (heldout := figure(result, "hits_heldout")) is not None:
        parts.append(f"finds {share_text(heldout)} of held-out texts")
    if (alarms := figure(result, "false_alarms")) is not None:
        of = "held-out texts match it" if matches else "others"
        parts.append(f"{100 * alarms:.3g}% of {of}")
    if (rater := result.get("rated_by")) is not None:
        parts.append(f"rated 0 to 2 by {rater}: {result.get('rated_concept', '')}")
    if (plain := next((figure(one, "share_baseline") for one in found.arms), None)) is not None:
        parts.append(f"baseline {share_text(plain)}")
    parts.append(f"{result.get('n')} texts of {len(result.get('prompts') or ())} prompts")
    parts.append(
        "chosen on other prompts" if found.kind == "auto" else f"seed {result.get('seed')}"
    )
    return printable(" · ".join(parts))


def measured_rows(
    found: Sequence[Measured], stack: Sequence[Intervention], presets: Mapping[str, str], when: Any
) -> list[Row]:
    """All measurements; `presets` are names by the words of their stacks."""
    rows = []
    for one in found:
        words = subject(one)
        own = is_about(one, stack)
        preset = presets.get(words)
        more = ((f"  preset {printable(preset)}", "$accent"),) if preset else ()
        cells = (
            Cell(
                f"{'● ' if own else '  '}{printable(words)}",
                "bold $foreground" if own else "",
                more,
            ),
            Cell(printable(str(one.result.get("recipe") or one.best or "none fits")), "$muted"),
            Cell(share_text(figure(one.result, "share")), "bold $accent"),
            Cell(share_text(figure(one.result, "share_random")), "$muted"),
            Cell(number(figure(one.result, "perplexity_ratio"), 2)),
            Cell(printable(one.sae_id), "$muted"),
            Cell(when(one.updated), "$muted"),
        )
        rows.append(Row(one.name, cells))
    return rows


def subject(one: Measured) -> str:
    """What was measured, in words."""
    if one.kind == "auto":
        label = one.result.get("label")
        return f"auto #{one.result.get('feature')}" + (f" {label}" if label else "")
    try:
        return stack_text([Intervention.from_json(held) for held in one.interventions])
    except (MiCrowError, TypeError):
        return one.name


def is_about(one: Measured, stack: Sequence[Intervention]) -> bool:
    """Whether a measurement is about the features, vectors and layers of a stack."""
    wanted = {each.in_sae(one.sae_id).target for each in stack if each.enabled}
    if one.kind == "auto":
        return wanted == {f"feature:{one.sae_id}/{one.result.get('feature')}"}
    held = [found for arm in one.arms[:1] for found in arm_stack(arm, one.sae_id) or ()]
    return bool(held) and wanted == {each.target for each in held}


def matching_arm(
    measured: Sequence[Measured],
    stack: Sequence[Intervention],
    constraint: Constraint,
    sae_id: str | None,
) -> Mapping[str, Any] | None:
    """The figures of exactly this stack under this constraint, the newest that there are."""
    if sae_id is None or not stack:
        return None
    wanted = [_bare(one.in_sae(sae_id)) for one in stack if one.enabled]
    for found in reversed(measured):
        for one in found.arms if found.sae_id == sae_id else ():
            held = arm_stack(one, sae_id)
            same = held is not None and [_bare(each) for each in held] == wanted
            if same and arm_constraint(one) == constraint:
                control = " and ".join(found.control_of(one))
                return {**one, "n": found.result.get("n"), "control": control}
    return None


def _bare(one: Intervention) -> dict[str, Any]:
    left_out = ("weights", "enabled")
    return {key: value for key, value in one.as_json().items() if key not in left_out}


def side_figures(arm: Mapping[str, Any] | None, side: str) -> Content:
    """The figures of an arm for the line over one text, each with that of a random feature or
    direction."""
    if arm is None:
        return Content("")
    if side == "baseline":
        words = f"hits {share_text(figure(arm, 'share_baseline'))} of {arm.get('n')} texts"
        if (rated := figure(arm, "overall_baseline")) is not None:
            words += f" · rated {number(rated, 2)}"
        return Content.styled(words, "$muted")
    random = arm.get("random")
    beside: Mapping[str, Any] = random if isinstance(random, Mapping) else {}
    parts: list[tuple[str, str]] = [
        (f"hits {share_text(figure(arm, 'share'))}", "bold $accent"),
        (f" of {arm.get('n')} texts", "$muted"),
    ]
    if beside:
        what = arm.get("control") or "feature"
        parts.append((f" (random {what} {share_text(figure(beside, 'share'))})", "$muted"))
    for title, name in (
        ("rated", "overall"),
        ("perplexity ×", "perplexity_ratio"),
        ("KL", "kl"),
        ("loss +", "ce_added"),
        ("distinct-2", "distinct_2"),
    ):
        value, other = figure(arm, name), figure(beside, name)
        if value is not None:
            parts += [(f" · {title} ", "$muted"), (number(value, 2), "$foreground")]
            if other is not None:
                parts.append((f" ({number(other, 2)})", "$muted"))
    return Content.assemble(*parts)
