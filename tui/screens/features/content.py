"""What the detail of a feature says beside its examples; pure."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from mi_crow.mechanistic.features.records import LEAST_AUROC, is_telling
from tui.screens.features.elsewhere import Elsewhere
from tui.text import count, number, printable
from tui.widgets.histogram import histogram_chart
from tui.widgets.lists.feature_columns import density, score
from tui.widgets.lists.layers import layer_column, layer_of, layer_words
from tui.widgets.lists.row_list import Cell, Column, Row, fitted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import (
        FeatureDetail,
        FeatureRow,
        LayerNorm,
        Proposal,
    )

TALL = 30  # lines of a pane from which the side lists one token per line
_BARS = "▁▂▃▄▅▆▇█"
_LAYER_WIDTH = 18  # cells of a layer's name beside its norm
_WIDE_TITLE = 24
_MOST_LAYERS = 8  # whose norms are listed
_LISTS_LAYERS = 44  # lines of a pane that does so; the line at the top has them as bars
_LEAST_NAME = 16  # cells of a proposed name, however little room its score leaves
RELATED_COLUMNS = (
    Column("feature", 7, "right"),
    Column("value", 5, "right"),
    layer_column(8, 34),
    Column("what"),
)


def head_content(detail: "FeatureDetail", width: int) -> Content:
    """Three lines: number, names, tags and note; how it fires; which labels it follows."""
    if not detail.row.fires:
        dead = Content.styled("never fires on the indexed tokens", "$muted")
        return Content("\n").join([_names(detail, width), dead])
    return Content("\n").join(
        [_names(detail, width), _figures(detail, width), _labels(detail, width)]
    )


def _names(detail: "FeatureDetail", width: int) -> Content:
    row, concepts = detail.row, detail.concepts
    parts: list[tuple[str, str]] = [(f"#{row.feature}", "bold $primary"), ("  ", "")]
    for place, one in enumerate(concepts):
        parts.append((" · " if place else "", "$faint"))
        parts.append((printable(one.name), "$accent" if place else "bold $accent"))
        by = "" if one.source == "user" else f" {printable(one.source)}"
        sure = f" {one.confidence:.2f}" if one.confidence < 1 else ""
        parts.append((by + sure, "$muted"))
    if not concepts:
        room = width - sum(cell_len(text) for text, _ in parts)
        parts.extend(_explained(detail) or _proposed(detail.proposal, room))
    tags = list(dict.fromkeys(f"#{tag}" for one in concepts for tag in one.tags))
    if tags:
        parts.append((f"  {printable(' '.join(tags))}", "$secondary"))
    if note := next((one.note for one in concepts if one.note), ""):
        parts.append(("   " + printable(note), "$muted"))
    return Content.assemble(*parts)


def _explained(detail: "FeatureDetail") -> list[tuple[str, str]]:
    """What a chat model says of it, and how well that predicts where it fires."""
    found = detail.explanation
    if found is None:
        return []
    facts = [f"by {printable(found.explainer)}"]
    if found.detection is not None:
        facts.append(f"detection {score(found.detection)}{found.interval('detection')}")
    if found.shuffled is not None:
        facts.append(f"another's {score(found.shuffled)}")
    if found.fuzzing is not None:
        facts.append(f"fuzzing {score(found.fuzzing)}{found.interval('fuzzing')}")
    if found.intruder is not None:
        told = f"{score(found.intruder)}{found.interval('intruder')}"
        facts.append(f"intruder {told} (chance .2)")
    if found.nearness is not None:
        facts.append(f"nearness {score(found.nearness)}{found.interval('nearness')}")
    if found.nearness_shuffled is not None:
        facts.append(f"another's {score(found.nearness_shuffled)}")
    if detail.explained_on:
        facts.append(f"on {detail.explained_on}")
    return [(printable(found.text), "italic"), (f"  {', '.join(facts)}", "$muted")]


def _proposed(found: "Proposal | None", room: int) -> list[tuple[str, str]]:
    """The name proposed for a feature that has none, and how far it holds: for that a long name is
    shortened."""
    if found is None or not found.name:
        kind = f"  {found.kind}" if found is not None else ""
        return [("no name yet", "$faint"), (kind, "$muted")]
    scored = "too few firings to score it"
    if found.score is not None:
        scored = f"name scores {score(found.score)}"
        if found.chance is not None:
            scored += f", another's {score(found.chance)}"
    scored = f"  {found.kind}, {scored}"
    name = fitted(Content(printable(found.name)), max(room - cell_len(scored), _LEAST_NAME))
    return [(name.plain.rstrip(), "italic"), (scored, "$muted")]


def _figures(detail: "FeatureDetail", width: int) -> Content:
    """How it fires, then as many of the other figures as there is room for."""
    row = detail.row
    figures = [
        (density(row.density), "of tokens"),
        (count(row.fires), "firings"),
        *_layers(detail),
        *_models(detail),
        ("max", number(row.max_act, 2)),
        ("mean", number(row.mean_act, 2)),
        ("std", number(detail.std_act, 2)),
        ("encoder-decoder cosine", number(detail.encoder_decoder_cosine, 2)),
        ("decoder norm", number(detail.decoder_norm, 2)),
        ("logit skew", number(detail.skew, 2)),
        ("kurtosis", number(detail.kurtosis, 2)),
    ]
    line = Content("")
    for place, (first, second) in enumerate(figures):
        styles = ("", "$muted") if place < 2 else ("$muted", "")
        part = Content.assemble((first, styles[0]), " ", (second, styles[1]))
        longer = Content.assemble(line, (" · ", "$faint"), part) if place else part
        if longer.cell_length > width:
            break
        line = longer
    return line


def _layers(detail: "FeatureDetail") -> list[tuple[str, str]]:
    """Of an SAE over several layers the one that it is of, and how much it writes to each."""
    if not detail.several:
        return []
    if not detail.layer:
        return [("layer", "not in this index: build it again")]
    bars = norm_bars(detail.written)
    return [("layer", printable(detail.layer)), *([("norms", bars)] if bars else [])]


def norm_bars(written: "Sequence[LayerNorm]") -> str:
    """The decoder norms from layer to layer, relative to the largest."""
    return "".join(_BARS[round(one.relative * (len(_BARS) - 1))] for one in written)


def _written(detail: "FeatureDetail", width: int, lines: int) -> Content:
    """How long its decoder row is in each layer that it writes to, as many as there are lines."""
    written = sorted(detail.written, key=lambda one: -one.relative)[:lines]
    if not written:
        return Content("")
    of = "  decoder norms" if width >= _WIDE_TITLE else ""
    found = [Content.assemble(("Layers", "bold $primary"), (of, "$muted"))]
    room = min(max(width - _LAYER_WIDTH - 7, 0), 10)
    for one in detail.written:
        if one in written:
            name = fitted(Content(printable(one.layer)), _LAYER_WIDTH)
            bar = "▪" * round(one.relative * room)
            share = (f" {number(one.relative, 2):>4} ", "$muted")
            found.append(Content.assemble(name, share, (bar, "$secondary")))
    return Content("\n").join(found)


def _models(detail: "FeatureDetail") -> list[tuple[str, str]]:
    """Of a crosscoder of two models: which of them it is of, and what says so."""
    found = detail.models
    if found is None:
        return []
    nus = f"{number(found.nu_reconstruction, 2)} {number(found.nu_error, 2)}"
    return [
        ("origin", found.origin),
        ("relative norm", number(found.relative_norm, 2)),
        ("nu rec., error", nus),
    ]


def _labels(detail: "FeatureDetail", width: int) -> Content:
    """The labels that it predicts best, by AUROC on held-out documents."""
    if not detail.labels:
        return Content.styled("the texts have no labels", "$faint")
    telling = [one for one in detail.labels if is_telling(one.auroc)]
    if not telling:
        return Content.styled(
            f"AUROC –  no label reaches {LEAST_AUROC} on held-out texts", "$faint"
        )
    line = Content.styled("held-out AUROC ", "$muted")
    for place, one in enumerate(telling):
        part = Content.assemble(printable(one.label), (f" {score(one.auroc)}", "$secondary"))
        if one.lift is not None:
            part = Content.assemble(part, (f" lift {number(one.lift, 1)}", "$muted"))
        longer = Content.assemble(line, (" · " if place else "", "$faint"), part)
        if place and longer.cell_length > width:
            break
        line = longer
    return line


def side_content(detail: "FeatureDetail", width: int, height: int, rows: int = 0) -> Content:
    """Histogram, positive and negative logits, in a column of that size with `rows` of features of
    other SAEs below."""
    tall = height >= TALL
    parts = (
        ("Positive logits", detail.promoted, "$success"),
        ("Negative logits", detail.suppressed, "$error"),
    )
    beside = tall and width >= _BESIDE
    blocks = [_histogram(detail, width, 4 if tall else 2) if detail.row.fires else Content("")]
    layers = min(len(detail.written), _MOST_LAYERS) if height >= _LISTS_LAYERS else 0
    if layers:
        blocks.append(_written(detail, width, layers))
        rows += (layers + 2) * 3 // 4  # the lists of tokens give the lines, not those below
    tokens_each = _tokens_shown(height - 2 * rows)
    if beside:  # the lines of two lists, their titles and the one between
        blocks.append(_logits_beside(detail, width, min(2 * tokens_each + 2, 20)))
    for title, tokens, style in () if beside else parts:
        if tall:
            blocks.append(_token_list(title, tokens[:tokens_each], width, style))
        else:
            blocks.append(token_flow(title, tokens, width, style))
    return Content("\n\n" if tall else "\n").join([block for block in blocks if block.plain])


def whole_side_content(detail: "FeatureDetail", width: int) -> Content:
    """Histogram, and all positive beside all negative logits, to be scrolled."""
    blocks = [_histogram(detail, width, 4)] if detail.row.fires else []
    blocks += [_written(detail, width, len(detail.written))] if detail.written else []
    return Content("\n\n").join([*blocks, _logits_beside(detail, width)])


def _logits_beside(detail: "FeatureDetail", width: int, most: int | None = None) -> Content:
    """Positive beside negative logits, at `most` so many of each."""
    half = (width - 2) // 2
    positive, negative = detail.promoted[:most], detail.suppressed[:most]
    pairs = zip_longest(
        _token_list("Positive logits", positive, half, "$success").split("\n"),
        _token_list("Negative logits", negative, half, "$error").split("\n"),
        fillvalue=Content(""),
    )
    rows = (
        Content.assemble(left, " " * (half - left.cell_length + 2), right) for left, right in pairs
    )
    return Content("\n").join(rows)


def _histogram(detail: "FeatureDetail", width: int, height: int) -> Content:
    lines, values = histogram_chart(detail.histogram, detail.edges, width, height)
    title = Content.assemble(("Activations", "bold $primary"), ("  tokens, log", "$muted"))
    drawn = [Content.assemble((f"{at} ", "$muted"), (bar, "$secondary")) for at, bar in lines]
    return Content("\n").join([title, *drawn, Content.styled(values, "$muted")])


def _tokens_shown(height: int) -> int:
    """Tokens of each sign in a list: the lists of related features keep half of the pane."""
    return max(min(4 + (height - TALL) // 3, 20), 4)


_FLOW_LINES = 2
_TOKEN_WIDTH = 13
_VALUE_WIDTH = 7
_BESIDE = 36  # cells from which positive and negative logits are beside each other


def _token_list(title: str, tokens: Sequence[tuple[str, float]], width: int, style: str) -> Content:
    """One token per line with its logit effect and, where there is room, a bar."""
    if not tokens:
        return Content("")
    lines = [Content.styled(title, "bold $primary")]
    strongest = max(abs(value) for _, value in tokens) or 1.0
    word = min(_TOKEN_WIDTH, width - _VALUE_WIDTH)
    room = min(max(width - word - _VALUE_WIDTH - 1, 0), 10)
    for token, value in tokens:
        text = Content(_word(token)).truncate(word, ellipsis=True)
        text = text.pad_right(word - text.cell_length)
        effect = f"{value:+{_VALUE_WIDTH}.2f}"
        shown = (f"{effect} ", "$muted") if room else (effect, style)
        bar = "▪" * round(abs(value) / strongest * room)
        lines.append(Content.assemble(text, shown, (bar, style)))
    return Content("\n").join(lines)


def token_flow(title: str, tokens: Sequence[tuple[str, float]], width: int, style: str) -> Content:
    """As many tokens as two lines hold, the strongest first, with its effect in the title."""
    if not tokens:
        return Content("")
    lines = [[]]
    used = 0
    for token, _ in tokens:
        word = Content(_word(token)).truncate(width, ellipsis=True)
        if used and used + 1 + word.cell_length > width:
            if len(lines) == _FLOW_LINES:
                break
            lines.append([])
            used = 0
        lines[-1].append(word)
        used += word.cell_length + (1 if used else 0)
    head = Content.assemble((title, "bold $primary"), (f"  {tokens[0][1]:+.2f}", style))
    return Content("\n").join([head, *(Content(" ").join(line) for line in lines)])


def _word(token: str) -> str:
    return printable(token.strip(" ") or token)


def related_rows(
    related: Sequence[tuple[int, float]], known: "Mapping[int, FeatureRow]"
) -> list[Row]:
    """Related features (near this one, or co-activating with it), the strongest first."""
    return [
        Row(
            str(feature),
            (
                Cell(f"#{feature}", "$foreground"),
                Cell(number(value, 2), "$muted"),
                Cell(layer_words(layer_of(known.get(feature))), "$muted"),
                name_cell(known.get(feature)),
            ),
        )
        for feature, value in related
    ]


_CLOSE = 0.7  # decoder cosine from which two features may be the same


def elsewhere_rows(found: Sequence[Elsewhere]) -> list[Row]:
    """The nearest feature of each other SAE, or why there is none."""
    best_first = sorted(found, key=lambda one: -one.cosine if one.feature is not None else 2)
    return [_elsewhere_row(one) for one in best_first]


def _elsewhere_row(one: Elsewhere) -> Row:
    sae, name = printable(one.sae_id), printable(one.name or one.trouble)
    if one.feature is None:
        known = (Cell("–" if one.trouble else "…", "$faint"), Cell(""), Cell(""))
    else:
        style = "$foreground" if one.cosine >= _CLOSE else "$faint"
        known = (Cell(f"#{one.feature}", style), Cell(score(one.cosine), "$muted"), Cell(""))
    style = "$accent" if one.name else "$muted"
    return Row(one.key, (*known, Cell(sae, "$secondary", ((f" {name}", style),) if name else ())))


def name_cell(row: "FeatureRow | None") -> Cell:
    """What a feature is called: its name, or else the label that it predicts best."""
    if row is None:
        return Cell("")
    if row.concept:
        return Cell(printable(row.concept), "$accent")
    if row.proposed:
        return Cell(printable(row.proposed), "italic $muted")
    return Cell(printable(row.top_label), "$muted") if row.top_label else Cell("–", "$faint")
