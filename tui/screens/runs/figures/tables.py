"""Small tables of Runs: files, the layers of an SAE, SAEs against each other, labels; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from mi_crow.mechanistic.features.records import auroc_text
from mi_crow.mechanistic.sae.evaluation.standing import Standing
from tui.screens.beginnings import in_columns
from tui.text import count, number, printable, size
from tui.widgets.facts import section
from tui.widgets.lists.row_list import fitted

_MOST_NAME = 40  # cells of the first column
_GAP = 2
_LABEL_WIDTH = 26  # cells of a label with its bar
_TOPIC_WIDTH = 30

_FIGURES = (
    ("FVU", "fvu", 3),
    ("L0", "l0", 1),
    ("dead", "dead_share", None),
    ("recovered", "loss_recovered", 3),
    ("CE added", "ce_added", 3),
)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, styles: Sequence[str] = ()
) -> Content:
    """Columns as wide as what is in them, the first at the left, the others at the right.
    `styles` are those of the first cells."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    widths[0] = min(widths[0], _MOST_NAME, max(width - sum(widths[1:]) - _GAP * len(widths), 8))
    names = [*styles, *["$foreground"] * (len(rows) - len(styles))]

    def line(cells: Sequence[str], first: str, rest: str) -> Content:
        parts = [fitted(Content.styled(cells[0], first), widths[0])]
        for text, room in zip(cells[1:], widths[1:], strict=True):
            parts.append(fitted(Content.styled(text, rest), room + _GAP, "right"))
        return Content("").join(parts).truncate(width, ellipsis=True)

    lines = [line(header, "$muted", "$muted")]
    lines += [line(row, name, "$foreground") for row, name in zip(rows, names, strict=True)]
    return Content("\n").join(lines)


def files_table(files: Mapping[str, int], width: int) -> Content | None:
    """The files of a folder with their sizes, the largest first."""
    if not files:
        return None
    rows = [(printable(name), size(n)) for name, n in sorted(files.items(), key=_largest)]
    names = max(len(name) for name, _ in rows) + 2
    names = min(names, max(width - 10, 8))
    lines = [
        Content.assemble(fitted(Content(name), names), (f"{n:>9}", "$muted")) for name, n in rows
    ]
    return section("Files", Content("\n").join(lines))


def _largest(one: tuple[str, int]) -> tuple[int, str]:
    return -one[1], one[0]


def layers_table(found: object, width: int) -> Content | None:
    """What an evaluation found on each layer of an SAE over several; None without that."""
    if not isinstance(found, Sequence) or isinstance(found, str):
        return None
    layers = [one for one in found if isinstance(one, Mapping)]
    if not layers:
        return None
    columns = [
        one for one in _FIGURES if any(isinstance(row.get(one[1]), float | int) for row in layers)
    ]
    header = ["layer", *(name for name, _, _ in columns)]
    rows = [
        [
            printable(str(row.get("layer", "–"))),
            *(_figure(row.get(key), digits) for _, key, digits in columns),
        ]
        for row in layers
    ]
    return section("By layer, on held-out text", table(header, rows, width))


def standings_table(standings: Sequence[Standing], sae_id: str, width: int) -> Content | None:
    """The SAEs of one layer by their FVU; None with fewer than two that were measured."""
    known = [one for one in standings if one.fvu is not None]
    if len(known) < 2:
        return None
    known.sort(key=lambda one: one.fvu or 0.0)
    columns = [one for one in _FIGURES if any(getattr(row, one[1]) is not None for row in known)]
    rows = [
        [
            printable(row.sae_id),
            *(_figure(getattr(row, key), digits) for _, key, digits in columns),
            row.measured,
        ]
        for row in known
    ]
    styles = ["bold $accent" if row.sae_id == sae_id else "$foreground" for row in known]
    header = ["SAE", *(name for name, _, _ in columns), "measured"]
    return section("SAEs of this layer", table(header, rows, width, styles))


def topics_table(found: object, width: int) -> Content | None:
    """The feature that tells each label best, of a demo; None for anything else."""
    if not isinstance(found, Sequence) or isinstance(found, str):
        return None
    cells = []
    for one in found:
        if isinstance(one, Mapping) and isinstance(one.get("auroc"), float | int):
            words = f" {printable(str(one.get('label', '–')))}"
            score = f" {auroc_text(float(one['auroc']), 3)}"
            head = f"#{one.get('feature', '–')}"
            name = fitted(Content(words), _TOPIC_WIDTH - 2 - len(head) - len(score))
            cells.append(Content.assemble((head, "$faint"), name.plain, (score, "$muted")))
    if not cells:
        return None
    title = Content.assemble(
        ("The feature of each topic", "bold $primary"), ("  AUROC on held-out texts", "$muted")
    )
    return Content("\n").join([title, in_columns(cells, width, _TOPIC_WIDTH)])


def label_bars(labels: Mapping[str, int], width: int, lines: int) -> Content | None:
    """The labels of a run with bars as long as they have documents, in as many lines as there
    are."""
    if not labels or lines < 1:
        return None
    columns = max(width // _LABEL_WIDTH, 1)
    shown = list(labels.items())[: columns * lines]
    most = max(n for _, n in shown)
    room = width // columns - _GAP
    names = min(max(len(printable(label)) for label, _ in shown), room // 2)
    bar = max(room - names - 8, 1)
    cells = [
        Content.assemble(
            fitted(Content(printable(label)), names),
            (f"{count(n):>6} ", "$muted"),
            ("━" * max(round(n / most * bar), 1), "$chart"),
        )
        for label, n in shown
    ]
    more = f"  {len(labels) - len(shown)} more" if len(shown) < len(labels) else ""
    title = Content.assemble(("Documents by label", "bold $primary"), (more, "$muted"))
    return Content("\n").join([title, in_columns(cells, width, room)])


def _figure(value: Any, digits: int | None) -> str:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return "–"
    return f"{100 * value:.1f}%" if digits is None else number(float(value), digits)
