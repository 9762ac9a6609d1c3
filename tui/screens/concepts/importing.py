"""Importing a dictionary: what each rule would change, shown before anything is written."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.actions import bindings
from tui.annotate import write
from tui.preferences.key_words import key
from tui.screens.base import MiCrowScreen
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_rows import Concept
    from mi_crow.mechanistic.concepts.exchange.importing import Imported, Pair, Rule

_MOST_ROWS = 14
_OTHER_LINES = 12  # of the popup and below it, where all that it can say is said
_LISTED = 500  # changes
_TROUBLES = 4  # rows that are wrong which are told of
_COLUMNS = (
    Column("change", 8),
    Column("feature", 7, "right"),
    Column("before"),
    Column("after"),
)
_WORDS = {
    "keep": "features that have a name are left as they are",
    "replace": "the file's names take the place of yours",
    "both": "the file's names are added to yours",
    "higher": "the more confident side names the feature",
}


class Choice(NamedTuple):
    """How a file is imported."""

    rule: "Rule"
    skip_bad: bool


class ImportPopup(Popup[Choice]):
    """Asks for the rule; dismisses with it, and whether rows that are wrong are left out."""

    BINDINGS = bindings("imports") + bindings("popup", "close")

    def __init__(self, name: str, plans: "Mapping[Rule, Imported]") -> None:
        super().__init__(classes="wide-list")
        self._name, self._plans = name, plans
        self._rules: list[Rule] = list(plans)
        self._rule: Rule = self._rules[0]
        self._skips = False

    def heading(self) -> str:
        return f"Import {self._name}"

    def compose_box(self) -> ComposeResult:
        yield Static(id="imports-rules", markup=False)
        yield Static(id="imports-counts", markup=False)
        yield RowList(_COLUMNS, empty="nothing changes")
        yield Static(id="imports-bad", markup=False)
        yield Static(id="imports-hint", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._show()
        self.query_one(RowList).focus()

    def on_resize(self) -> None:
        self._show()

    @property
    def _plan(self) -> "Imported":
        return self._plans[self._rule]

    def _show(self) -> None:
        plan = self._plan
        parts: list[tuple[str, str]] = [("names that differ  ", "$muted")]
        for one in self._rules:
            chosen = one == self._rule
            parts.append((f"[{one}]" if chosen else f" {one} ", "bold $accent" if chosen else ""))
        self.query_one("#imports-rules", Static).update(Content.assemble(*parts))
        line = f"{_WORDS[self._rule]}: {replace(plan, skipped=0).in_words()}"
        self.query_one("#imports-counts", Static).update(Content.styled(line, "$muted"))
        rows = self.query_one(RowList)
        rows.set_rows([_row(place, one) for place, one in enumerate(plan.changes[:_LISTED])])
        more_troubles = max(len(plan.troubles[:_TROUBLES]) - 1, 0)
        room = min(_MOST_ROWS, self.size.height - _OTHER_LINES - more_troubles)
        rows.styles.height = max(min(len(rows.rows), room), 1)
        self._show_bad()
        more_rows = len(plan.changes) - _LISTED
        shown = f"the first {_LISTED} are listed · " if more_rows > 0 else ""
        keys = f"{key('imports.left')} {key('imports.right')}"
        hint = f"{shown}{keys} choose · enter imports · esc does not"
        self.query_one("#imports-hint", Static).update(hint)

    def _show_bad(self) -> None:
        plan, line = self._plan, self.query_one("#imports-bad", Static)
        line.display = bool(plan.skipped)
        if plan.skipped:
            rows = "1 row is wrong" if plan.skipped == 1 else f"{plan.skipped:,} rows are wrong"
            end = "left out" if self._skips else f"{key('imports.skip')} leaves out what is wrong"
            said = "\n".join(map(printable, plan.troubles[:_TROUBLES]))
            text = f"{rows}, {end}: {said}"
            line.update(Content.styled(text, "$muted" if self._skips else "$warning"))

    def action_rule(self, step: int) -> None:
        place = self._rules.index(self._rule) + step
        self._rule = self._rules[place % len(self._rules)]
        self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "skip":
            return bool(self._plan.skipped)
        return super().check_action(action, parameters)

    def action_skip(self) -> None:
        """Leaves out the rows that are wrong, or not."""
        self._skips = not self._skips
        self._show_bad()

    @on(RowList.Opened)
    def _import(self) -> None:
        self.action_take()

    def action_take(self) -> None:
        """Imports; refuses while some rows are wrong, unless the user chose to skip them."""
        if self._plan.skipped and not self._skips:
            self.notify(
                f"{key('imports.skip')} leaves out the rows that are wrong", severity="warning"
            )
        else:
            self.dismiss(Choice(self._rule, self._skips))


def _row(place: int, change: "Pair") -> Row:
    old, new = change
    verb = "add" if old is None else "remove" if new is None else "change"
    one = new or old
    assert one is not None
    return Row(
        str(place),
        (
            Cell(verb, "$success" if old is None else "$warning"),
            Cell(f"#{one.feature}", "$primary"),
            Cell("" if old is None else said(old), "$muted"),
            Cell("" if new is None else said(new)),
        ),
    )


def said(concept: "Concept") -> str:
    """A concept on one line, as it is typed."""
    tags = "".join(f" #{tag}" for tag in concept.tags)
    confidence = "" if concept.confidence == 1 else f" ~{concept.confidence:g}"
    note = f" -- {concept.note}" if concept.note else ""
    return printable(f"{concept.name}{tags}{confidence}{note}")


class ImportsNames(MiCrowScreen):
    """The part of Concepts that imports."""

    def import_from(self, path: Path) -> None:
        """Imports at once what contradicts nothing; asks about the rest."""
        sae_id, workspace = self.context.sae_id, self.context.workspace

        def read() -> "Mapping[Rule, Imported]":
            from mi_crow.mechanistic.concepts.exchange.importing import dry_runs

            return dry_runs(workspace, self.context.annotations, path, sae_id=sae_id)

        def planned(plans: "Mapping[Rule, Imported]") -> None:
            if len(plans) == 1 and not any(one.skipped for one in plans.values()):
                self._import(path, Choice("keep", skip_bad=False))
            else:
                popup = ImportPopup(path.name, plans)
                self.app.push_screen(popup, partial(self._import, path))

        self.in_thread(read, planned, group="import", opens=True)

    def _import(self, path: Path, choice: Choice | None) -> None:
        if choice is None:
            return
        workspace, rule, skip_bad = self.context.workspace, choice.rule, choice.skip_bad
        sae_id = self.context.sae_id

        def change(annotations: "Annotations") -> str:
            from mi_crow.mechanistic.concepts.exchange.importing import counted, import_concepts

            done = import_concepts(
                workspace, annotations, path, sae_id=sae_id, rule=rule, skip_bad=skip_bad
            )
            undone = f"; {key('app.undo')} undoes" if done.changes else ""
            return f"Imported {counted(done.concepts)} from {path}: {done.outcome}{undone}"

        write(self.mi_crow, change)
