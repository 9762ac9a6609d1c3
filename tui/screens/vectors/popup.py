"""The popup over the vectors of the workspace: their list, and all that is known of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container

from mi_crow.mechanistic.vectors.stored import list_vectors, norms_of
from mi_crow.store.workspace import Workspace
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.vectors.content import COLUMNS, Known, vector_detail, vector_rows
from tui.widgets.detail_lines import DetailLines
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from tui.context import AppContext

_BESIDE = 110  # columns from which the list and the vector stand beside each other


@dataclass(frozen=True)
class VectorChoice:
    """What to do with a vector."""

    action: str  # steer | new | rename | remove
    name: str = ""


class VectorsPopup(Popup[VectorChoice]):
    """Lists the vectors; enter reads one as features and texts. Dismisses with what to do."""

    HEADING = "Vectors"
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

    def compose_box(self) -> ComposeResult:
        with Container(id="vectors-both"):
            with Container(id="vectors-left"):
                yield ListHeading("Vectors", self._rows)
                yield self._rows
            with Container(id="vectors-right"):
                yield Trouble(id="vectors-trouble")
                yield self._detail

    def on_mount(self) -> None:
        self._rows.set_rows(vector_rows([*self._found.values()]))
        self._rows.select(self._at)
        self._rows.focus()

    @on(events.Resize)
    def _lay_out(self) -> None:
        self.set_class(self.size.width >= _BESIDE, "-beside")
        self._show()

    @property
    def _one(self) -> Known | None:
        return self._found.get(self._rows.key or "")

    @on(RowList.Highlighted)
    @on(DetailLines.WidthChanged)
    def _show(self) -> None:
        one = self._one
        if one is None:
            return
        reading = self.is_working("inside")
        hint = "reading its features and texts…" if reading else f"{key('list.open')} looks into it"
        inside = self._inside.get(one.name)
        self._detail.show(vector_detail(one, inside, hint, self._detail.width), one.name)

    @on(RowList.Opened)
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
        return bool(self._found) or action != "choose" or parameters == ("new",)

    def action_choose(self, action: str) -> None:
        self.dismiss(cast("VectorChoice", VectorChoice(action, self._rows.key or "")))


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
