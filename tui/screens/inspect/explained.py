"""What the session found out about an answer, as rows of lists and grids; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.content import Content

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.concepts.inspection_words import (
    doubt,
    figure_name,
    which_token,
    without_causes,
)
from mi_crow.mechanistic.steering.known import shown_name
from tui.screens.inspect.inspection import Inspection
from tui.text import number, printable
from tui.widgets.lists.row_list import Cell, Column, Row
from tui.widgets.token_grid import GridRow
from tui.widgets.token_heat import exact, quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

CAUSES = (
    Column("feature"),
    Column("effect", 7, "right"),
    Column("ablated", 7, "right", 40),
    Column("share", 5, "right", 48),
    Column("on", 0, "left", 84),
)
_SHOWN_TOKENS = 8
_LAYERS = 4  # of an SAE over several, whose parts are told


@dataclass(frozen=True)
class Cause:
    """One row of the causes: a feature, under the feature that it acts through."""

    sae_id: str
    feature: int
    depth: int
    row: Row


def cause_columns(found: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns of the causes: with a layer where an SAE is over several."""
    layers = [str(one.get("layer") or "") for sae in found["saes"] for one in sae["causes"]]
    width = max(map(len, layers), default=0)
    feature, *rest = CAUSES
    return (feature, Column("layer", width, from_width=34, extra=not width), *rest)


def causes_of(found: Mapping[str, Any], sae_id: str | None = None) -> list[Cause]:
    """The causes of an answer: those of one SAE, or the tree of all. Raises CorruptDataError."""
    try:
        if sae_id is not None:
            only = next(one for one in found["saes"] if one["sae_id"] == sae_id)
            return [_listed(sae_id, one, found["tokens"]) for one in only["causes"]]
        checked = {
            (sae["sae_id"], one["feature"]): one for sae in found["saes"] for one in sae["causes"]
        }
        return _grown(found["tree"], checked, found["tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"the model session returned no attribution ({error!r})") from error


def _grown(
    tree: Sequence[Mapping[str, Any]],
    checked: Mapping[tuple[str, int], Mapping[str, Any]],
    tokens: Sequence[str],
    above: Cause | None = None,
) -> list[Cause]:
    found: list[Cause] = []
    for one in tree:
        known = {} if above else checked.get((one["sae_id"], one["feature"]), {})
        cause = _listed(one["sae_id"], {**known, **one}, tokens, above)
        found += [cause, *_grown(one["children"], checked, tokens, cause)]
    return found


def _listed(
    sae_id: str, one: Mapping[str, Any], tokens: Sequence[str], above: Cause | None = None
) -> Cause:
    feature, effect = int(one["feature"]), float(one["effect"])
    name = (shown_name(one), "$accent" if one.get("concept") else "$muted")
    places = [int(token) for token, _ in one.get("tokens", ())[:_SHOWN_TOKENS]]
    where = " ".join(quoted(str(tokens[place])) for place in places)
    depth = above.depth + 1 if above else 0
    label = Cell(
        "  " * depth + ("└ " if depth else "") + f"#{feature}",
        "$foreground",
        (
            (f"  {printable(name[0])}", name[1]),
            (f"  {sae_id}" if above and sae_id != above.sae_id else "", "$faint"),
        ),
    )
    measured = one.get("measured")
    layer = printable(str(one.get("layer") or ""))
    cells = (
        label,
        Cell(layer, "$muted"),
        Cell(f"{effect:+.2f}", "$success" if effect > 0 else "$warning"),
        Cell("" if measured is None else f"{measured:+.2f}", "$muted"),
        Cell(f"{100 * float(one['share']):.0f}%", "$muted"),
        Cell(where, "$muted"),
    )
    path = f"{above.row.key}/" if above else ""  # a feature may act through several others
    return Cause(sae_id, feature, depth, Row(f"{path}{sae_id}/{feature}", cells))


def answer_line(found: Mapping[str, Any]) -> Content:
    """What is explained: `logit of “ anchor” after “ the”  8.21`, `feature #3 of early at
    “ the”`."""
    target = found["target"]
    after = exact(found["tokens"][target["position"]])
    if target["kind"] == "feature":
        what = [(f"#{target['feature']}", "bold")]
        what.append((f" of {printable(str(target['sae_id']))} at ", "$muted"))
    else:
        what = [(exact(target["token"]), "bold")]
        if target.get("against") is not None:
            what += [(" minus ", "$muted"), (exact(target["against"]), "bold")]
        what.append((" after ", "$muted"))
    kind, which = str(target["kind"]).replace("_", " "), which_token(found)
    steps = found.get("steps")
    return Content.assemble(
        (f"{kind} of " if target["kind"] != "feature" else "feature ", "$muted"),
        *what,
        after,
        (f"  {found['value']:.2f}", "bold $accent"),
        (f"  {which}" if which else "", "$faint"),
        (f"  integrated gradients, {steps} steps" if steps else "", "$faint"),
    )


def says_line(rows: Sequence[Mapping[str, Any]], title: str) -> Content:
    """The likeliest next tokens with their probabilities."""
    parts: list[tuple[str, str]] = [(f"{title} ", "$muted")]
    for one in rows[:5]:
        parts += [(exact(one["token"]), ""), (f" {100 * one['probability']:.1f}%  ", "$muted")]
    return Content.assemble(*parts)


def check_lines(found: Mapping[str, Any]) -> Content:
    """How far the causes are causes: measured beside predicted, and the set beside a random one."""
    lines = []
    for sae in found["saes"]:
        parts, check = sae["parts"], sae["check"]
        words = "  ".join(f"{figure_name(key)} {value:+.2f}" for key, value in parts.items())
        lines.append(Content.styled(f"{sae['sae_id']}: {words}", "$muted"))
        if by_layer := _by_layer(sae.get("by_layer", ())):
            lines.append(Content.styled(by_layer, "$muted"))
        if check is None:
            lines.append(Content.styled(without_causes(sae), "$warning"))
            continue
        predicted = check.get("predicted_sum")  # older saved inspections lack it
        lines.append(
            Content.styled(
                f"{len(sae['causes'])} ablated together {check['together']:+.2f}"
                + ("" if predicted is None else f", predicted {predicted:+.2f}")
                + f"  rank correlation {_figure(check['rank_correlation'])}  faithfulness "
                f"{_figure(check['faithfulness'])}, random "
                f"{_figure(check['random_faithfulness'])}  completeness "
                f"{_figure(check['completeness'])}",
                "$muted",
            )
        )
        if warning := doubt(check, found["value"]):
            lines.append(Content.styled(warning, "$warning"))
    return Content("\n").join(lines)


def _by_layer(layers: Sequence[Mapping[str, Any]]) -> str:
    """Features and SAE error at the layers where they are the largest, if there are several."""
    sizes = {one["point"]: abs(one["features"]) + abs(one["error"]) for one in layers}
    largest = sorted(sizes, key=lambda point: -sizes[point])[:_LAYERS]
    shown = [one for one in layers if one["point"] in largest and sizes[one["point"]] > 0]
    if len(shown) < 2:
        return ""
    parts = [f"{one['point']} {one['features']:+.2f} {one['error']:+.2f}" for one in shown]
    rest = len([one for one in sizes.values() if one > 0]) - len(shown)
    more = f", {rest} more" if rest else ""
    return f"features and SAE error at {', '.join(parts)}{more}"


def _figure(value: float | None) -> str:
    return "–" if value is None else number(value, 2)


def feature_grid(
    found: Inspection,
    features: Sequence[int],
    pinned: Sequence[int],
    rows: "Mapping[int, FeatureRow]",
) -> list[GridRow]:
    """Features by tokens: activations as shares of the feature's greatest in the index, or on the
    text where that is not known."""
    grid = []
    for feature in dict.fromkeys((*pinned, *features)):
        acts, known = found.acts_of(feature), rows.get(feature)
        most = (known.max_act if known is not None else 0) or max(acts, default=0) or 1.0
        shares = tuple(min(act / most, 1.0) for act in acts)
        texts = tuple(f"{100 * share:.0f}" if share > 0 else "" for share in shares)
        name = known.meaning if known is not None else ""
        mark = "● " if feature in pinned else "  "
        grid.append(GridRow(str(feature), f"#{feature} {name}".strip(), shares, texts, mark))
    return grid


def lens_grid(found: Mapping[str, Any]) -> list[GridRow]:
    """Layers by tokens, the last layer first: the likeliest next token, as sure as it is."""
    try:
        return [
            GridRow(
                layer["point"],
                layer["point"],
                tuple(float(cell[0][1]) for cell in layer["top"]),
                tuple(str(cell[0][0]) for cell in layer["top"]),
            )
            for layer in reversed(found["layers"])
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptDataError(f"the model session returned no lens ({error!r})") from error


def lens_line(found: Mapping[str, Any], point: str, token: int) -> Content:
    """One cell of the lens in full."""
    layer = next(one for one in found["layers"] if one["point"] == point)
    parts: list[tuple[str, str]] = [
        (f"{point} after ", "$muted"),
        (exact(found["tokens"][token]), "bold"),
        ("  ", ""),
    ]
    for text, share in layer["top"][token]:
        parts += [(exact(text), ""), (f" {100 * share:.1f}%  ", "$muted")]
    entropy, divergence = layer["entropy"][token], layer["kl"][token]
    parts.append((f"entropy {entropy:.2f}  KL to the output {divergence:.2f} nats", "$faint"))
    return Content.assemble(*parts)


def layers_grid(found: Sequence[Mapping[str, Any]]) -> list[GridRow]:
    """SAEs by tokens, the last layer first: the share of each activation that is explained."""
    grid = []
    for one in reversed(found):
        shares = tuple(max(float(value or 0), 0.0) for value in one["explained"] or ())
        if not shares:
            shares = (0.0,) * len(one["tokens"])
        texts = tuple(f"{100 * share:.0f}" if share > 0 else "" for share in shares)
        grid.append(GridRow(one["sae_id"], _place(one), shares, texts))
    return grid


def strongest_grid(found: Sequence[Mapping[str, Any]]) -> list[GridRow]:
    """SAEs by tokens, the last layer first: the first feature of each token, as strong as it is on
    this text."""
    grid = []
    for one in reversed(found):
        names = {row["feature"]: _name(row) for row in one["features"]}
        first = [pairs[0] if pairs else (None, 0.0) for pairs in one["per_token"]]
        most = max((float(act) for _, act in first), default=0.0) or 1.0
        texts = tuple(
            "" if feature is None else names.get(feature) or f"#{feature}" for feature, _ in first
        )
        shares = tuple(float(act) / most for _, act in first)
        grid.append(GridRow(one["sae_id"], _place(one), shares, texts))
    return grid


def _name(row: Mapping[str, Any]) -> str:
    """What a feature is called, without a score."""
    return str(row.get("concept") or row.get("proposed") or row.get("label") or "")


def _place(one: Mapping[str, Any]) -> str:
    return f"{one['point']} {one['sae_id']}"


def patch_grid(found: Mapping[str, Any]) -> list[GridRow]:
    """Layers by tokens, the last layer first: the share of the difference that restoring brings
    back, in percent; what makes it larger than it was has a minus."""
    try:
        return [
            GridRow(
                point,
                point,
                tuple(min(abs(float(value)), 1.0) for value in row),
                tuple(f"{100 * value:.0f}" if abs(value) >= 0.005 else "" for value in row),
            )
            for point, row in reversed(list(zip(found["points"], found["effects"], strict=True)))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"the model session returned no patching ({error!r})") from error


def patched_tokens(found: Mapping[str, Any]) -> list[str]:
    """The clean tokens, those at which the prompts differ behind a sign."""
    pairs = zip(found["tokens"], found["corrupted_tokens"], strict=True)
    return [clean if clean == other else f"≠{clean.strip()}" for clean, other in pairs]


def patch_line(found: Mapping[str, Any], point: str, token: int) -> Content:
    """One cell of the patching in full, and what is measured."""
    value = float(found["effects"][found["points"].index(point)][token])
    clean, other = found["tokens"][token], found["corrupted_tokens"][token]
    instead = ("", "") if clean == other else (f" instead of {exact(other)}", "")
    target = found["target"]
    return Content.assemble(
        (f"{point} at ", "$muted"),
        (exact(clean), "bold"),
        instead,
        (f"  brings back {100 * value:.1f}%", "bold $accent"),
        (f"  of {exact(target['token'])} minus {exact(target['against'])}: ", "$muted"),
        (f"{found['corrupted']:.2f} patched, {found['clean']:.2f} clean", "$muted"),
    )


def token_labels(
    found: Inspection, rows: "Mapping[int, FeatureRow]", count: int = 3
) -> list[list[str]]:
    """What is under each token: the first features there, by name or number."""
    return [
        [_label(feature, rows.get(feature)) for feature, _ in pairs[:count]]
        for pairs in found.per_token
    ]


def _label(feature: int, row: "FeatureRow | None") -> str:
    return (row.meaning if row is not None else "") or f"#{feature}"


def layer_line(one: Mapping[str, Any], token: int) -> Content:
    """One SAE on one token: what is explained, and the strongest features there."""
    value = (one["explained"] or [None] * (token + 1))[token]
    explained = "nothing fires here" if value is None else f"explains {100 * value:.0f}%"
    named = {row["feature"]: _name(row) for row in one["features"]}
    parts: list[tuple[str, str]] = [
        (f"{one['sae_id']} at ", "$muted"),
        (exact(one["tokens"][token]), "bold"),
        (f"  {explained}  ", "$accent"),
    ]
    for feature, act in one["per_token"][token][:3]:
        name = printable(named.get(feature, ""))
        parts += [(f"#{feature} ", ""), (f"{name} " if name else "", "$accent")]
        parts.append((f"{act:.2f}  ", "$muted"))
    return Content.assemble(*parts)
