"""The features that tell two texts, or two sets of texts, apart, with both texts side by side."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.concepts.marked import parse_tags, tag_named
from mi_crow.mechanistic.steering.targets import group_of
from tui.actions import bindings
from tui.annotate import may_tag, write
from tui.preferences.key_words import key
from tui.screens.features.reading import proposed_by
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.popups import FoundPopup, Wanted
from tui.text import number, printable, progress_bar
from tui.widgets.forms.fields import FormField, Values
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.feature_columns import density
from tui.widgets.lists.layers import brief_layer, layer_column
from tui.widgets.lists.marks import Marks
from tui.widgets.lists.row_list import Cell, Column, ListHeading, Row, RowList
from tui.widgets.token_heat import peak_index, quoted
from tui.widgets.token_pane import TokenPane
from tui.widgets.words import Words

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore
    from tui.workbench import Workbench

_BAR = 8
_TEXTS = (
    Column("feature", 12),
    Column("more on", 8 + 2, "left", 40),
    Column("differ", 7, "right"),
    Column("first", 6, "right"),
    Column("second", 6, "right"),
    Column("density", 7, "right", 72),
    layer_column(5),
    Column("name"),
)
_SETS = (
    Column("feature", 12),
    Column("more in", 8 + 2, "left", 40),
    Column("AUROC", 5, "right"),
    Column("effect", 6, "right"),
    Column("first", 6, "right", 60),
    Column("second", 6, "right", 60),
    layer_column(5),
    Column("name"),
)


class DifferencesPopup(FoundPopup):
    """The features of a comparison; dismisses with the feature to open or the group to steer. The
    keys act on the marked features, or without marks on the one under the
    cursor."""

    BINDINGS = bindings("popup", "close") + bindings("differences")
    SCOPE = "differences"

    def __init__(
        self,
        found: Mapping[str, Any],
        names: Mapping[int, str],
        kept: Found | None,
        patch: Callable[[], None],
    ) -> None:
        """`names` are those that features have now; `patch` patches the second text with the first,
        and opens over this. Raises CorruptDataError."""
        super().__init__(kept, "map differences")
        self._found, self._names, self._patch = found, names, patch
        self._marks: Marks[int] = Marks()
        self._of_texts = "second" in found
        try:
            self._features = {int(row["feature"]): row for row in found["features"]}
            self._greatest = max((abs(_size(row)) for row in self._features.values()), default=0.0)
            self._rows()
            pairs = found["aligned"] if self._of_texts else ()
            self._to_second = {a: b for a, b in pairs if a is not None and b is not None}
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptDataError(
                f"the model session returned no comparison ({error!r})"
            ) from error
        self._to_first = {b: a for a, b in self._to_second.items()}

    def heading(self) -> str:
        what = "texts" if self._of_texts else "sets of texts"
        order = self._found.get("order")
        by = f"; differ in {order}" if self._of_texts and order else ""
        return f"Two {what}, read by {self._found['sae_id']}{by}{self._cut()}"

    def _cut(self) -> str:
        """Which text the model did not read to its end."""
        words = ""
        for side in ("first", "second") if self._of_texts else ():
            one = self._found[side]
            read, total = one.get("tokens_read", 0), one.get("tokens_total", 0)
            if read < total:
                words += f"; of the {side} only {read:,} of {total:,} tokens"
        return words

    def compose_box(self) -> ComposeResult:
        if self._of_texts:
            with Horizontal(id="differences-texts"):
                yield TokenPane(id="first-text")
                yield TokenPane(id="second-text")
        yield Words(id="differences-line", markup=False)
        columns = _TEXTS if self._of_texts else _SETS
        rows = RowList(columns, empty="no feature fires differently", id="differences-list")
        yield ListHeading("Feature", rows)
        yield rows

    def on_mount(self) -> None:
        rows = self.query_one("#differences-list", RowList)
        rows.bring(*(["layer"] if any("layer" in one for one in self._features.values()) else []))
        rows.set_rows(self._rows())
        rows.focus()
        if self._of_texts:
            self._show_texts()
            self.call_after_refresh(self._fit)
        else:
            line = (
                f"{self._found['texts_for']} texts against {self._found['texts_against']}; AUROC "
                "and effect on the half that features were not chosen by. Shuffled sets: "
                f"{self._found['chance']:.2f}"
            )
            self.query_one("#differences-line", Words).update(Content.styled(line, "$muted"))

    def on_resize(self) -> None:
        if self._of_texts:
            self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """Gives the texts the lines that they need, at most two fifths of the screen."""
        needed = max(pane.row_count for pane in self._panes())
        texts = self.query_one("#differences-texts")
        texts.styles.height = max(2, min(needed, self.size.height * 2 // 5))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "patch":
            return self._of_texts
        return super().check_action(action, parameters)

    # Both texts.

    def _panes(self) -> tuple[TokenPane, TokenPane]:
        return self.query_one("#first-text", TokenPane), self.query_one("#second-text", TokenPane)

    def _show_texts(self) -> None:
        same = {
            a
            for a, b in self._to_second.items()
            if self._tokens("first")[a] == self._tokens("second")[b]
        }
        equal = same, {self._to_second[a] for a in same}
        for pane, side, kept in zip(self._panes(), ("first", "second"), equal, strict=True):
            tokens, one = self._tokens(side), self._found[side]
            flags = zip(one["special"], one["outlier"], strict=True)
            dimmed = [place for place, pair in enumerate(flags) if any(pair)]
            pane.show(tokens, dimmed, set(range(len(tokens))) - kept)
        self._heat()

    def _tokens(self, side: str) -> Sequence[str]:
        return self._found[side]["tokens"]

    @on(RowList.Highlighted)
    def _heat(self) -> None:
        """Heats both texts with the feature under the cursor, on one scale."""
        row = self._row
        if row is None or not self._of_texts:
            return
        top = max(*row["first_acts"], *row["second_acts"], 1e-12)
        peaks: list[int | None] = []
        for pane, side in zip(self._panes(), ("first", "second"), strict=True):
            acts = row[f"{side}_acts"]
            pane.heat(acts, top)
            peaks.append(peak_index(acts))
        self._go_to_peak(*peaks)

    def _go_to_peak(self, first: int | None, second: int | None) -> None:
        """Puts both cursors where the feature is strongest, in the first text if it fires there."""
        if first is not None:
            second = self._to_second.get(first)
        elif second is not None:
            first = self._to_first.get(second)
        for pane, token in zip(self._panes(), (first, second), strict=True):
            if token is not None:
                pane.cursor = token
        self._tell(first, second)

    @on(TokenPane.Moved)
    def _moved(self, event: TokenPane.Moved) -> None:
        """The token beside it follows."""
        first, second = self._panes()
        if not event.pane.has_focus:
            return
        if event.pane is first:
            here, beside = event.token, self._to_second.get(event.token)
            if beside is not None:
                second.cursor = beside
        else:
            here = self._to_first.get(event.token)
            if here is not None:
                first.cursor = here
        self._tell(here, None if event.pane is first else event.token)

    def _tell(self, first: int | None, second: int | None = None) -> None:
        row = self._row
        if second is None and first is not None:
            second = self._to_second.get(first)
        parts: list[Content | tuple[str, str]] = []
        for side, token in (("first", first), ("second", second)):
            text = quoted(self._tokens(side)[token]) if token is not None else "no token"
            parts += [(f"{side} ", "$muted"), (text, "bold" if token is not None else "$faint")]
            if row is not None and token is not None:
                parts.append((f" {row[f'{side}_acts'][token]:.2f}", "$accent"))
            parts.append(("   ", ""))
        same = (
            first is not None
            and second is not None
            and self._tokens("first")[first] == self._tokens("second")[second]
        )
        parts.append(("the same token" if same else "differs: underlined", "$faint"))
        self.query_one("#differences-line", Words).update(Content.assemble(*parts))

    @on(TokenPane.Opened)
    @on(RowList.Opened)
    def _open(self) -> None:
        if (row := self._row) is not None:
            self.dismiss(Wanted("open", self._found["sae_id"], int(row["feature"])))

    # The list.

    @property
    def _row(self) -> Mapping[str, Any] | None:
        key = self.query_one("#differences-list", RowList).key
        return self._features[int(key)] if key is not None else None

    def _rows(self) -> list[Row]:
        return [
            Row(str(feature), self._cells(feature, row)) for feature, row in self._features.items()
        ]

    def _cells(self, feature: int, row: Mapping[str, Any]) -> tuple[Cell, ...]:
        size = _size(row)
        mark = "●" if feature in self._marks else " "
        label = Cell(f"{mark}#{feature}", "$foreground")
        full, empty = progress_bar(abs(size) / (self._greatest or 1.0), _BAR)
        side = Cell("1 " if size > 0 else "2 ", "$muted", ((full, "$chart"), (empty, "$faint")))
        name = Cell(printable(self._meaning(feature, row)), "$accent")
        layer = Cell(brief_layer(str(row.get("layer", ""))), "$muted")
        if self._of_texts:
            values = (row["first"], row["second"])
            often = row["density"]
            return (
                label,
                side,
                Cell(f"{size:+.3g}"),
                *(Cell(number(value, 2) if value else "–", "$muted") for value in values),
                Cell("" if often is None else density(often), "$muted"),
                layer,
                name,
            )
        return (
            label,
            side,
            Cell(f"{row['auroc']:.2f}"),
            Cell(f"{row['effect']:+.2f}"),
            *(Cell(number(row[side], 2), "$muted") for side in ("mean_for", "mean_against")),
            layer,
            name,
        )

    def _meaning(self, feature: int, row: Mapping[str, Any]) -> str:
        known = self._names.get(feature) or row.get("concept") or row.get("name")
        return str(known or row.get("label") or "")

    def action_mark(self) -> None:
        if (row := self._row) is not None:
            self._marks.toggle(int(row["feature"]))
            rows = self.query_one("#differences-list", RowList)
            rows.set_rows(self._rows())
            rows.action_cursor_down()

    def action_mark_all(self) -> None:
        self._marks.toggle_all(list(self._features))
        self.query_one("#differences-list", RowList).set_rows(self._rows())

    @property
    def _chosen(self) -> list[int]:
        """The marked features in the order of the list, or the one under the cursor."""
        marked = [feature for feature in self._features if feature in self._marks]
        row = self._row
        return marked or ([] if row is None else [int(row["feature"])])

    def action_steer(self) -> None:
        """Sends them to Steer as one group: those of the second text with a negative weight."""
        chosen = self._chosen
        if not chosen:
            return
        weights = tuple((one, 1.0 if _size(self._features[one]) > 0 else -1.0) for one in chosen)
        try:
            target = group_of(weights, self._found["sae_id"]).text
        except UserError as error:
            self.tell(error)
            return
        self.dismiss(Wanted("steer group", self._found["sae_id"], target=target))

    def action_patch(self) -> None:
        """Opens over the comparison."""
        self._patch()

    def action_tag(self) -> None:
        """Asks for a tag; features without a name get the one that stands in the list."""
        app, sae_id = cast("Workbench", self.app), str(self._found["sae_id"])
        chosen = self._chosen
        names = {one: self._meaning(one, self._features[one]) for one in chosen}
        named = {one: name for one, name in names.items() if name}
        if not chosen or not may_tag(app):
            return
        if not named:
            self.tell(UserError("none of these features has a name", hint="name one first"))
            return

        def read(values: Values) -> list[str]:
            tags, _ = parse_tags(str(values["tags"]))
            if not tags:
                raise UserError("there is no tag", hint="write one, or several with commas")
            return tags

        def tagged(tags: list[str] | None) -> None:
            if tags is not None:
                store = app.context.features
                own = store is not None and store.meta().sae_id == sae_id
                write(app, partial(_tag, sae_id, named, tags, store if own else None))

        field = FormField("tags", "tags", "", "several with commas between them")
        count = "1 feature" if len(named) == 1 else f"{len(named)} features"
        way = ("app.inspect", "inspect.compare", "form.submit", "differences.tag")
        # The title has no number: the form comes back also where others are marked then.
        app.push_screen(FormPopup("Tag features", (field,), read, f"Tag {count}", way=way), tagged)


def _tag(
    sae_id: str,
    names: Mapping[int, str],
    tags: Sequence[str],
    store: "FeatureStore | None",
    annotations: "Annotations",
) -> str:
    proposed = proposed_by(store, list(names)) if store is not None else {}
    with annotations.one_change():
        for tag in tags:
            tag_named(annotations, sae_id, names, tag, proposed)
    count = "1 feature" if len(names) == 1 else f"{len(names)} features"
    return f"{count} tagged {', '.join(tags)}; {key('app.undo')} undoes"


def _size(row: Mapping[str, Any]) -> float:
    """How much more there is of a feature on the first side."""
    return float(row["difference"] if "difference" in row else row["effect"])
