"""What the comparison of features says: columns side by side, then what each two share; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from textual.content import Content

from mi_crow.mechanistic.features.records import LEAST_AUROC
from tui.screens.features.content import token_flow
from tui.text import number, printable
from tui.widgets.example_lines import Drawing, folded
from tui.widgets.lists.feature_columns import density, score
from tui.widgets.lists.layers import layer_words
from tui.widgets.token_heat import HeatMode

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.comparing import Alone, Comparison, Pair, Side

_LEAST_WIDTH = 36  # cells of a column
_RULE = " │ "
_BESIDE = 120  # cells from which the texts of one feature and those of the other are side by side
_TALL = 40  # lines from which there are more texts

Lines = list[Content]


@dataclass(frozen=True)
class Room:
    """Where the comparison is drawn."""

    width: int
    height: int
    mode: HeatMode = "colour"

    @property
    def columns(self) -> int:
        """How many features fit side by side."""
        return max((self.width + len(_RULE)) // (_LEAST_WIDTH + len(_RULE)), 1)

    @property
    def texts(self) -> int:
        """Texts in each list."""
        return 8 if self.height >= _TALL else 3


def comparison_lines(found: "Comparison", first: int, room: Room) -> Lines:
    """All lines; the columns begin with the side at `first`."""
    shown = found.sides[first : first + room.columns]
    width = (room.width - len(_RULE) * (len(shown) - 1)) // len(shown)
    columns = [_column(side, Room(width, room.height, room.mode)) for side in shown]
    lines: Lines = []
    for block, parts in enumerate(zip(*columns, strict=True)):
        lines += _beside(parts, width)
        if block == 0:  # what each two share is seen without a scroll
            rule = Content.styled("─" * room.width, "$faint")
            lines += [rule, *_summary(found, room.width), rule]
            continue
        lines.append(_beside([[Content("")]] * len(shown), width)[0])
    tops = {side.feature: side.detail.row.max_act for side in found.sides}
    for pair in found.pairs:
        lines += [Content.styled("─" * room.width, "$faint"), *_pair(pair, found, tops, room)]
    if found.no_cosine:
        words = f"No cosine: {printable(found.no_cosine)}"
        lines += [Content(""), *Content.styled(words, "$muted").wrap(room.width)]
    if any(one.at_most for pair in found.pairs for one in (*pair.only_first, *pair.only_second)):
        words = "≤: not among the strongest features of the text, so at most this if it fires there"
        lines += [Content(""), *Content.styled(words, "$faint").wrap(room.width)]
    return [line.truncate(room.width, ellipsis=True) for line in lines]


def _summary(found: "Comparison", width: int) -> Lines:
    """Cosine and Jaccard index of each two, as many beside each other as fit."""
    lines = [Content.styled("cosine · Jaccard", "$muted")]
    for pair in found.pairs:
        cosine, jaccard = _likeness(pair)
        own = Content.assemble(
            "   ",
            (f"#{pair.first} #{pair.second} ", "bold $primary"),
            cosine,
            (" · ", "$faint"),
            jaccard,
        )
        if lines[-1].cell_length + own.cell_length > width:
            lines.append(Content(" " * 16))
        lines[-1] = lines[-1] + own
    return lines


def _likeness(pair: "Pair") -> tuple[str, str]:
    bound = "≤ " if pair.jaccard_is_bound else ""
    return "–" if pair.cosine is None else f"{pair.cosine:.3f}", f"{bound}{pair.jaccard:.3f}"


def _beside(parts: Sequence[Sequence[Content]], width: int) -> Lines:
    """Blocks of lines next to each other, each as wide as `width`."""
    rule = Content.styled(_RULE, "$faint")
    return [
        rule.join([_exactly(one or Content(""), width) for one in row])
        for row in zip_longest(*parts)
    ]


def _exactly(line: Content, width: int) -> Content:
    line = line.truncate(width, ellipsis=True)
    return line.pad_right(max(width - line.cell_length, 0))


def _column(side: "Side", room: Room) -> list[Lines]:
    """The blocks of one feature, the same of each."""
    detail = side.detail
    flows = [
        token_flow(title, tokens, room.width, style).split("\n")
        for title, tokens, style in (
            ("Positive logits", detail.promoted, "$success"),
            ("Negative logits", detail.suppressed, "$error"),
        )
    ]
    return [_head(side), *map(list, flows), _examples(side, room)]


def _head(side: "Side") -> Lines:
    row = side.detail.row
    proposal = side.detail.proposal
    proposed = row.proposed or (proposal.name if proposal is not None else "")
    if row.concept:
        name = printable(row.concept), "bold $accent"
    else:
        name = (printable(proposed), "italic $muted") if proposed else ("no name yet", "$faint")
    if row.top_label:
        label = Content.assemble(
            ("AUROC ", "$muted"),
            printable(row.top_label),
            (f" {score(row.top_auroc)}", "$secondary"),
        )
    elif side.detail.labels:
        label = Content.styled(f"no label reaches {LEAST_AUROC}", "$faint")
    else:
        label = Content.styled("the texts have no labels", "$faint")
    fires = (
        Content.assemble(
            density(row.density),
            (" of tokens", "$muted"),
            (" · max ", "$muted"),
            number(row.max_act, 2),
        )
        if row.fires
        else Content.styled("never fires on the indexed tokens", "$muted")
    )
    if side.detail.several:
        layer = layer_words(side.detail.layer) or "layer –"  # short: a column may be narrow
        fires = Content.assemble(fires, (" · ", "$faint"), layer)
    return [Content.assemble((f"#{row.feature}", "bold $primary"), "  ", name), label, fires]


def _examples(side: "Side", room: Room) -> Lines:
    lines = [Content.styled("Top activations", "bold $primary")]
    drawing = Drawing(side.detail.row.max_act, room.width, room.mode)
    for one in folded(side.examples)[: room.texts]:
        lines += drawing.windows(one, 2)
    if not side.examples:
        lines.append(Content.styled("none", "$faint"))
    return lines


def _pair(pair: "Pair", found: "Comparison", tops: dict[int, float], room: Room) -> Lines:
    cosine, jaccard = _likeness(pair)
    sample = f"  over {found.cofiring.words()}" if found.cofiring.is_sample else ""
    head = Content.assemble(
        (f"#{pair.first} and #{pair.second}", "bold $primary"),
        ("   decoder cosine ", "$muted"),
        cosine,
        ("   Jaccard ", "$muted"),
        jaccard,
        (sample, "$muted"),
    )
    words = [printable(one.token.strip(" ") or one.token) for one in pair.promoted]
    promoted = Content.assemble(
        ("Promoted by both  ", "$muted"), "  ".join(words) if words else ("no token", "$faint")
    )
    beside = room.width >= _BESIDE
    width = (room.width - len(_RULE)) // 2 if beside else room.width
    texts = [
        _alone(a, b, some, Drawing(tops[a], width, room.mode), room.texts)
        for a, b, some in (
            (pair.first, pair.second, pair.only_first),
            (pair.second, pair.first, pair.only_second),
        )
    ]
    return [head, promoted, *(_beside(texts, width) if beside else [*texts[0], *texts[1]])]


def _alone(
    feature: int, other: int, texts: "Sequence[Alone]", drawing: Drawing, count: int
) -> Lines:
    """Texts with `feature` and without `other`. Where none is certain, those where `other` is not
    among the strongest features, each with what it may have there."""
    title = Content.assemble((f"#{feature} without #{other}", "bold"))
    if not texts:
        return [title, Content.styled("none among its examples", "$faint")]
    lines = [title]
    if texts[0].at_most:
        said = f"no text for certain; #{other} not among the strongest:"
        lines.append(Content.styled(said, "$muted"))
    bounds = {one.example.document: one.at_most for one in texts}
    notes = {key: f"  #{other} {_bound(value)}" for key, value in bounds.items()}
    width = max(drawing.width - max(map(len, notes.values())), 8)
    narrow = Drawing(drawing.top, width, drawing.mode)
    for one in folded([one.example for one in texts])[:count]:
        line = narrow.line(one)
        note = notes[one.example.document]
        lines.append(Content.assemble(_exactly(line, width), (note, "$muted")))
    return lines


def _bound(value: float) -> str:
    return f"≤ {number(value, 2)}" if value else "silent"
