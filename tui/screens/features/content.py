"""What the detail of a feature says beside its examples; pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from mi_crow.mechanistic.features.records import LEAST_AUROC, is_telling
from tui.text import count, number, printable
from tui.widgets.histogram import histogram_chart
from tui.widgets.lists.feature_columns import density, score
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureDetail, FeatureRow

TALL = 30  # lines of a pane from which the side lists one token per line
RELATED_COLUMNS = (Column("feature", 7, "right"), Column("value", 5, "right"), Column("what"))


def head_content(detail: "FeatureDetail", note: str = "") -> Content:
    """Three lines: number, names and tags, how it fires, which labels it follows."""
    row = detail.row
    name = (
        Content.styled(printable(row.concept), "bold $accent")
        if row.concept
        else Content.styled("no name yet", "$faint")
    )
    first = Content.assemble((f"#{row.feature}", "bold $primary"), "  ", name)
    others = [one.name for one in detail.concepts if one.name != row.concept]
    tags = list(dict.fromkeys(f"#{tag}" for one in detail.concepts for tag in one.tags))
    if others:
        first = Content.assemble(first, (f" · {printable(' · '.join(others))}", "$accent"))
    if tags:
        first = Content.assemble(first, (f"  {printable(' '.join(tags))}", "$secondary"))
    if note:
        first = Content.assemble(first, ("   " + printable(note), "$muted"))
    if not row.fires:
        return Content("\n").join(
            [first, Content.styled("never fires on the indexed tokens", "$muted")]
        )
    second = Content.assemble(
        density(row.density),
        (" of tokens", "$muted"),
        (" · ", "$faint"),
        count(row.fires),
        (" firings", "$muted"),
        (" · ", "$faint"),
        ("max ", "$muted"),
        number(row.max_act, 2),
        (" · ", "$faint"),
        ("mean ", "$muted"),
        number(row.mean_act, 2),
    )
    return Content("\n").join([first, second, _labels(detail)])


def _labels(detail: "FeatureDetail") -> Content:
    """The labels that it predicts best, by AUROC on held-out documents."""
    if not detail.labels:
        return Content.styled("the texts have no labels", "$faint")
    parts = [
        Content.assemble(printable(label.label), (f" {score(label.auroc)}", "$secondary"))
        for label in detail.labels
        if is_telling(label.auroc)
    ][:3]
    if not parts:
        return Content.styled(
            f"AUROC –  no label reaches {LEAST_AUROC} on held-out texts", "$faint"
        )
    return Content.assemble(("AUROC ", "$muted"), Content.styled(" · ", "$faint").join(parts))


def side_content(detail: "FeatureDetail", width: int, height: int) -> Content:
    """Histogram, positive and negative logits, in a column of that size."""
    tall = height >= TALL
    parts = (
        ("Positive logits", detail.promoted, "$success"),
        ("Negative logits", detail.suppressed, "$error"),
    )
    blocks = [_histogram(detail, width, 4 if tall else 2) if detail.row.fires else Content("")]
    for title, tokens, style in parts:
        if tall:
            blocks.append(_token_list(title, tokens[: _tokens_shown(height)], width, style))
        else:
            blocks.append(token_flow(title, tokens, width, style))
    return Content("\n\n" if tall else "\n").join([block for block in blocks if block.plain])


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


def _token_list(title: str, tokens: Sequence[tuple[str, float]], width: int, style: str) -> Content:
    """One token per line with its logit effect and a bar."""
    if not tokens:
        return Content("")
    lines = [Content.styled(title, "bold $primary")]
    strongest = max(abs(value) for _, value in tokens) or 1.0
    room = min(max(width - _TOKEN_WIDTH - 8, 0), 10)
    for token, value in tokens:
        text = Content(_word(token)).truncate(_TOKEN_WIDTH, ellipsis=True)
        text = text.pad_right(_TOKEN_WIDTH - text.cell_length)
        bar = "▪" * round(abs(value) / strongest * room)
        lines.append(Content.assemble(text, (f"{value:+7.2f} ", "$muted"), (bar, style)))
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
                _name_cell(known.get(feature)),
            ),
        )
        for feature, value in related
    ]


def _name_cell(row: "FeatureRow | None") -> Cell:
    if row is None:
        return Cell("")
    if row.concept:
        return Cell(printable(row.concept), "$accent")
    return Cell(printable(row.top_label), "$muted") if row.top_label else Cell("–", "$faint")
