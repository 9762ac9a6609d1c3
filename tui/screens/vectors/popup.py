"""The popup over the vectors of the workspace: their list, and all that is known of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container

from mi_crow.mechanistic.vectors.stored import list_vectors, norms_of
from mi_crow.store.workspace import Workspace
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.vectors.content import (
    COLUMNS,
    FEATURE_COLUMNS,
    Known,
    feature_rows,
    features_title,
    vector_detail,
    vector_rows,
)
from tui.widgets.detail_lines import DetailLines
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from tui.context import AppContext

_FEW = 8  # lines of the list where the vector is below it
_BESIDE = 110  # columns from which the list and the vector are beside each other


@dataclass(frozen=True)
class VectorChoice:
    """What to do with a vector."""

    action: (
        str  # steer | inspect | new | rename | note | export | import | refine | remove | feature
    )
    name: str = ""
    words: str = ""  # the note that there is
    feature: int = 0  # to open, of SAE `sae_id`
    sae_id: str = ""


class VectorsPopup(Popup[VectorChoice]):
    """Lists the vectors; enter reads one as features and texts. Dismisses with what to do."""

    HEADING = "Vectors"
    OPEN_WORDS = "look into"
    CSS_PATH = [Popup.CSS_PATH, Path(__file__).with_name("vectors.tcss")]
    BINDINGS = [*bindings("popup", "close"), *bindings("vectors")]

    def __init__(self, found: Sequence[Known], context: "AppContext", at: str = "") -> None:
        super().__init__(classes="comparing vectors")
        self._found = {one.name: one for one in found}
        self._app_context = context
        self._at = at
        self._inside: dict[str, Mapping[str, Any]] = {}
        empty = lambda: f"no vectors yet: {key('vectors.new')} makes one"  # noqa: E731
        self._rows = RowList(COLUMNS, empty=empty, id="vectors-list")
        self._detail = DetailLines(id="vectors-detail")
        self._features = RowList(FEATURE_COLUMNS, id="vectors-features")

    def compose_box(self) -> ComposeResult:
        with Container(id="vectors-both"):
            with Container(id="vectors-left"):
                yield ListHeading("Vectors", self._rows)
                yield self._rows
            with Container(id="vectors-right"):
                yield Trouble(id="vectors-trouble")
                yield self._detail
                with Container(id="vectors-inside"):
                    yield ListHeading("", self._features, id="vectors-title")
                    yield self._features

    def on_mount(self) -> None:
        self._rows.set_rows(vector_rows([*self._found.values()]))
        self._rows.select(self._at)
        self._rows.focus()

    @on(events.Resize)
    def _lay_out(self) -> None:
        beside = self.size.width >= _BESIDE
        self.set_class(beside, "-beside")
        lines = min(max(len(self._found), 1), _FEW) + 1
        self.query_one("#vectors-left").styles.height = "1fr" if beside else lines
        self._show()

    @property
    def _one(self) -> Known | None:
        return self._found.get(self._rows.key or "")

    @on(RowList.Highlighted, "#vectors-list")
    @on(DetailLines.WidthChanged)
    def _show(self) -> None:
        one = self._one
        if one is None:
            return
        reading = self.is_working("inside")
        hint = "reading its features and texts…" if reading else f"{key('list.open')} looks into it"
        inside = self._inside.get(one.name)
        self._detail.show(vector_detail(one, inside, hint, self._detail.width), one.name)
        rows = feature_rows(inside or {})
        self.query_one("#vectors-inside").display = bool(rows)
        if rows and inside is not None:
            self._features.set_rows(rows)
            height = min(len(rows), max(self.size.height // 5, 3))
            self._features.styles.height = height
            self.query_one("#vectors-title", ListHeading).call_it(features_title(inside))
            room = self.query_one("#vectors-right").size.height - height - 2
            self._detail.styles.height = max(min(self._detail.row_count + 1, room), 3)
        else:
            self._detail.styles.height = "1fr"

    @on(RowList.Opened, "#vectors-features")
    def _open_feature(self, event: RowList.Opened) -> None:
        features = self._inside.get(self._rows.key or "", {}).get("features") or {}
        sae_id = str(features.get("sae_id") or "")
        choice = VectorChoice("feature", feature=int(event.key), sae_id=sae_id)
        self.dismiss(cast("VectorChoice", choice))

    @on(RowList.Opened, "#vectors-list")
    def _look_into(self) -> None:
        one = self._one
        if one is None:
            return
        work = partial(look_into, self._app_context, one)
        trouble = self.query_one(Trouble)
        self.in_thread(work, partial(self._looked, one.name), group="inside", trouble=trouble)
        self._show()

    def _looked(self, name: str, found: Mapping[str, Any]) -> None:
        self._inside[name] = found
        self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self._found) or action != "choose" or parameters[0] in ("new", "import")

    def action_choose(self, action: str) -> None:
        one = self._one
        words = str(one.made.get("note") or "") if one is not None else ""
        choice = VectorChoice(action, self._rows.key or "", words)
        self.dismiss(cast("VectorChoice", choice))


def read_vectors(workspace: Workspace) -> list[Known]:
    """The readable vectors of a workspace, by name."""
    return [Known(one, norms_of(one.path)) for one in list_vectors(workspace)]


def look_into(context: "AppContext", one: Known) -> dict[str, Any]:
    """Asks the session what is in a vector, and the index what its features are called. Blocks."""
    model = one.summary.model_id
    own = context.sae()
    saes = [own] if own is not None else []
    saes += [sae for sae in reversed(context.saes()) if sae is not own]
    fitting = [sae for sae in saes if not model or sae.model_id == model]
    points = {*one.summary.widths}
    runs = [
        run.run_id
        for run in reversed(context.runs())
        if run.manifest.model_id == model and points & {it.point for it in run.manifest.layers}
    ]
    made_of = one.made.get("run_id")
    run_id = made_of if made_of in runs else next(iter(runs), None)
    sae_id = fitting[0].sae_id if fitting else None
    found = context.session.call("look_into", name=one.name, sae_id=sae_id, run_id=run_id)
    store = context.features
    features = found.get("features")
    if store is not None and isinstance(features, dict) and store.meta().sae_id == sae_id:
        named = {it["feature"] for key in ("nearest", "pursuit") for it in features[key]}
        found["names"] = {row.feature: row.meaning for row in store.rows(sorted(named))}
    return found
