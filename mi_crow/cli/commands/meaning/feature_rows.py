"""Rows of features in print."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mi_crow.cli.formatting import count, number, share
from mi_crow.cli.tables import Column, print_table
from mi_crow.mechanistic.features.catalogue import (
    BY_LABEL,
    BY_NAME,
    LAYER,
    FeatureColumn,
    column_named,
)
from mi_crow.mechanistic.features.records import auroc_text

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureRow


def ordering(sort: str | None) -> tuple[str, ...]:
    """The column by which an order goes, where it is none of those that are always printed."""
    if sort == LAYER:
        return (LAYER,)
    always = {"feature", "density", "fires", "max_act", "mean_act", "top_auroc", "name_score"}
    if sort is None or sort in always:
        return ()
    if sort.startswith(BY_LABEL):
        return (sort,)
    return tuple(c.name for c in BY_NAME.values() if c.sort == sort and c.is_number)[:1]


def print_columns(rows: "Sequence[FeatureRow]", names: Sequence[str]) -> None:
    columns = [column_named(name) for name in names]
    print_table(
        [Column(c.title, right=c.is_number, shorten=not c.is_number) for c in columns],
        [[_cell(column, row) for column in columns] for row in rows],
    )


def _cell(column: FeatureColumn, row: "FeatureRow") -> str:
    if column.name == "meaning":
        return row.meaning or "-"
    value = row.more.get(column.name, getattr(row, column.key, None))
    if isinstance(value, tuple):
        return ", ".join(str(one).strip() for one in value) or "-"
    if not column.is_number:
        return str(value or "-")
    if column.kind == "share":
        return share(value)
    return count(value) if column.kind == "count" else number(value)


def print_rows(
    rows: "Sequence[FeatureRow]",
    more: Mapping[str, Sequence[str]] | None = None,
    by: Sequence[str] = (),
) -> None:
    """`more` are columns to print before the concept, as those called `by`, which were read."""
    extra = dict(more or {})
    for column in map(column_named, by):
        extra[column.title] = [_cell(column, row) for row in rows]
    if any(row.top_label for row in rows):
        extra["best label"] = [row.top_label or "-" for row in rows]
        scores = [row.top_auroc for row in rows]
        extra["AUROC"] = ["-" if one is None else auroc_text(one) for one in scores]
    if "detection" not in by and any(row.detection is not None for row in rows):
        found = [row.detection for row in rows]
        extra["detection"] = ["-" if one is None else auroc_text(one) for one in found]
    columns: list[Column | str] = [">feature", ">fires", ">density", ">max", ">mean"]
    columns += [Column(title, right=title not in ("best label", "layer")) for title in extra]
    scored = any(_score(row) != "-" for row in rows)
    lines = [
        [
            str(row.feature),
            count(row.fires),
            share(row.density),
            number(row.max_act),
            number(row.mean_act),
            *(column[place] for column in extra.values()),
            row.concept or row.proposed or "",
            *([_score(row)] if scored else []),
        ]
        for place, row in enumerate(rows)
    ]
    named = "concept / proposed…" if any(row.proposed for row in rows) else "concept…"
    print_table([*columns, named, *([">score"] if scored else [])], lines)


def _score(row: "FeatureRow") -> str:
    """Of the name that is shown, where it is the proposed one."""
    score = row.more.get("score")
    return "-" if score is None or (row.concept and not row.accepted) else auroc_text(score)


class LayerCells(NamedTuple):
    """The layers in a table of features, a column or none: `title` goes into the titles, what `of`
    gives into each row."""

    title: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The cell of one feature."""
        return (str(row.get("layer") or "-"),) if self.title else ()


def layer_cells(rows: Sequence[Mapping[str, Any]]) -> LayerCells:
    """The column of the layers that rows of features name; none for an SAE of one layer."""
    return LayerCells(("layer",) if any(row.get("layer") for row in rows) else ())
