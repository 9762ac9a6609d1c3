"""Screen 6, Control: the model's layer tree, the hooks on it, live statistics of a layer."""

from dataclasses import replace
from functools import partial
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from tui import messages
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.control.detail import hook_layer, layer_detail
from tui.screens.control.hooks import HOOK_COLUMNS
from tui.screens.control.known import (
    KnownModel,
    known_layers,
    known_model,
    read_known,
    what_is_on,
)
from tui.screens.control.layer_list import LayerList
from tui.screens.control.overview import (
    captured_texts,
    made_of,
    model_and_others,
    models_of,
    overview,
)
from tui.screens.control.tree import COLUMNS, LayerTree, layer_from_row
from tui.screens.control.watching import Measured, WatchesLayers
from tui.screens.no_sae import no_sae
from tui.text import printable
from tui.widgets.area import Area
from tui.widgets.detail import DetailScroll
from tui.widgets.facts import beside, blocks
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.trouble import Trouble

_BESIDE = 150  # cells of the pane from which the keys are beside the layer
_FACTS_SHARE = 0.8  # of the pane, as the styles have it
_TEXT = "The ship leaves the harbour at dawn."


Rows = list[dict[str, Any]]
Of = tuple[str, messages.ModelAlone | None]  # an SAE, or a model without one


class ControlScreen(WatchesLayers):
    """Inside the model. Nothing is loaded before somebody asks for it."""

    NAME = "control"
    HOME = "#layers"
    CSS_PATH = ["../../widgets/widgets.tcss", "control.tcss"]
    BINDINGS = bindings("control")

    def __init__(self) -> None:
        super().__init__()
        self._tree = LayerTree(())
        self._folded: set[str] = set()
        self._known: KnownModel | None = None  # what is known of the model without loading it
        self._hooks: Rows | None = None  # None: no model is loaded
        self._statistics: dict[str, dict[str, Any]] = {}
        self._profile: dict[str, Any] = {}  # of the model on the text, over depth
        self._words = ""  # the layers are filtered by
        self._asked = False
        self._read_for: Of | None = None  # whose model the tree is
        self._refused_in: messages.SessionState | None = None  # of which it was not told

    def compose_body(self) -> ComposeResult:
        none = "no such layer"
        layers = LayerList(COLUMNS, empty=lambda: none if self._words else "", id="layers")
        own = RowList(
            HOOK_COLUMNS, empty=lambda: f"none: {key('control.new')} adds one", id="own-hooks"
        )
        with Horizontal():
            with Vertical(id="tree", classes="pane -across -shown"):
                yield ListHeading("Layers", layers)
                yield Trouble(id="tree-trouble")
                yield layers
                yield Static(id="notice", markup=False)
            with Vertical(id="layer", classes="pane -across"):
                yield Trouble(id="layer-trouble")
                with DetailScroll(id="layer-detail"):
                    yield Static(id="layer-text")
                yield ListHeading("Added hooks", own)
                yield own
                yield Static("Text", id="probe-title", classes="title", markup=False)
                yield Area(_TEXT, id="probe-text")
        yield PromptLine()

    def on_mount(self) -> None:
        self._know_model()
        self._follow_session()

    def on_screen_resume(self) -> None:
        self._follow_session()
        self.look_at_stack()  # Steer may have changed it

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._know_model()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._know_model()
        self._show_notice()

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        if self._read_for is not None and self._read_for[0] == message.old:
            self._read_for = (message.new, self._read_for[1])

    def on_session_changed(self, _: messages.SessionChanged) -> None:
        self._follow_session()

    # Before and while the model is loaded.

    def _follow_session(self) -> None:
        """Asks for the tree once the session is ready; forgets it when the session ended."""
        state = self.context.session_state
        phase = state.phase
        held = state.sae_id, state.alone
        told = state is self._refused_in or (self._asked and self._read_for in (None, held))
        if phase == "ready" and not told:
            self._read_for = None
            self._ask_for_model(held)
        elif phase in ("off", "died"):
            self._asked = False
        self._show_notice()

    def _know_model(self) -> None:
        """Finds out what runs, SAEs and the model's files say; the files are read in a thread."""
        context = self.context
        asked = known_model(context.sae(), context.usual_model(), context.runs(), context.saes())
        read = self._known
        if asked is None:
            self._now_known(None)
        elif read is not None and asked.same(read):
            self._now_known(replace(read, runs=asked.runs))
        else:
            if read is None or read.name != asked.name:
                self._now_known(asked)
            self.in_thread(partial(read_known, asked), self._now_known, group="known")

    def _now_known(self, known: KnownModel | None) -> None:
        if known == self._known:
            return
        self._known = known
        if self._hooks is None:
            at_first = not self._tree.layers
            self._tree = LayerTree(known_layers(known) if known is not None else [])
            sae = self.context.sae()
            self._fold_blocks(sae.layer if sae is not None else "", select=at_first)
        self._show_rows()
        self._show_notice()

    @property
    def _known_here(self) -> KnownModel | None:
        """What is known of the model in the tree: the loaded one may be another."""
        known, loaded = self._known, self.context.session_state.model_id
        return known if known is None or self._hooks is None or known.name == loaded else None

    def _fold_blocks(self, layer: str, *, select: bool) -> None:
        """Opens as much of the tree as fits, from the block of `layer` on, and goes there."""
        lines = self.query_one("#layers").size.height if self.has_class("-tall") else 0
        self._folded = self._tree.folded_to(lines, layer)
        if select:
            self._show_rows()
            self.query_one("#layers", RowList).select(layer)

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._show_notice()
        self._show_detail()

    def _show_notice(self) -> None:
        state, sae = self.context.session_state, self.context.sae()
        load = key("control.load")
        if state.phase == "loading":
            text = "loading the model: a few seconds"
        elif state.phase == "died":
            shown = self.query_one("#tree-trouble", Trouble).display  # which says the same above
            text = f"{load} loads it again" if shown else f"{state.detail}; {load} loads it again"
        elif self._hooks is not None and self.context.session_is_ready:
            text = ""
        elif self._hooks is not None and state.phase == "ready":
            held = f"the model of {state.sae_id}" if state.sae_id else "a model without an SAE"
            text = f"{held}; {load} loads that of {self.context.sae_id}"
        elif sae is None and (usual := self.context.usual_model()) is not None:
            text = f"not loaded yet; {load} loads {usual.model}"
        elif sae is None:
            text = no_sae(self.context) or "looking at the workspace…"
        else:
            text = f"not loaded yet; {load} loads {sae.model_id or 'the model'}"
        self._say_below(text)
        self.refresh_bindings()  # whether there is a model to load

    def _say_below(self, text: str) -> None:
        """Below the tree: what hinders, or else what can be done."""
        notice = self.query_one("#notice", Static)
        room = notice.size.height if notice.display else 0
        can = "" if text or not self.has_class("-tall") else self.query_one(LayerList).below(room)
        notice.update(printable(text) or can)
        notice.set_class(not text, "-calm")
        notice.display = bool(text or can)

    @property
    def left_out_keys(self) -> tuple[str, ...]:
        """What the footer has no place for: to load the model that is loaded."""
        state = self.context.session_state
        ready = state.phase == "ready" and (state.sae_id, state.alone) == self._wanted()
        return ("control.load",) if ready else ()

    def action_load_model(self) -> None:
        if self.context.session_state.phase != "loading":
            self._ask_for_model(self._wanted())

    def _wanted(self) -> Of:
        """The open SAE, or without one the model of the newest run."""
        sae_id = self.context.sae_id
        return sae_id or "", self.context.usual_model() if sae_id is None else None

    def _ask_for_model(self, of: Of) -> None:
        self._asked = True

        def read() -> tuple[Rows, Rows]:
            client = self.context.ready_session(*of)
            layers, hooks = client.call("layers"), client.call("hooks")
            return _listed(layers, "layers"), _listed(hooks, "hooks")

        self.in_thread(
            read,
            partial(self._show_model, of),
            group="model",
            failed=partial(self._model_refused, of),
            trouble=self.query_one("#tree-trouble", Trouble),
        )

    def _show_model(self, of: Of, read: tuple[Rows, Rows]) -> None:
        state = self.context.session_state
        if of != (state.sae_id, state.alone):
            self._asked = False
            self._follow_session()  # another model was loaded meanwhile
            return
        if of != self._read_for:
            self._profile, self._found = {}, []
            self._statistics = {}  # of another model's layers, which may be called the same
        self._read_for = of
        layers, self._hooks = read
        self._tree = LayerTree([layer_from_row(row) for row in layers])
        self._fold_blocks(self.context.session_state.layer, select=True)
        self._show_notice()

    def _model_refused(self, of: Of, error: Exception) -> None:
        """The news that the model is loaded may come after this: it is not asked again for that."""
        self._asked, state = False, self.context.session_state
        if of == (state.sae_id, state.alone):
            self._refused_in = state
        self._refused(error)

    def _refused(self, error: Exception) -> None:
        self.tell(error)
        self._show_notice()
        self._show_detail()

    # The tree.

    def _show_rows(self) -> None:
        hooked = {hook_layer(hook) for hook in self._hooks or ()}
        hooked |= {self._named(spec.layer) for spec in self._specs if spec.enabled}
        steered, known, said = self._steered_layers(), self._known_here, {}
        if known is not None:
            said = {layer.name: what_is_on(layer, known) for layer in self._tree.layers}
        rows = self._tree.rows(self._folded, hooked, steered, self._words, said)
        self.query_one("#layers", RowList).set_rows(rows)
        self.query(ListHeading).first().refresh()
        self._show_notice()
        self._show_detail()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_notice)

    @on(RowList.Opened)
    def _fold(self, event: RowList.Opened) -> None:
        if event.row_list.id != "layers":
            return
        if self._words:
            self.clear_filter()  # the layer in its place
            self._folded -= set(self._tree.ancestors(event.key))
            self._show_rows()
            self.query_one("#layers", RowList).select(event.key)
        elif self._tree.has_children(event.key):
            self._folded ^= {event.key}
            self._show_rows()
        else:
            self.action_measure()

    @on(RowList.Highlighted)
    @on(DetailScroll.WidthChanged)
    def _show_detail(self) -> None:
        layer = self._tree.get(self.query_one("#layers", RowList).key)
        content, width = Content(""), self.query_one("#layer-detail", DetailScroll).text_width
        if layer is not None:
            statistics = self._statistics.get(layer.name)
            content = layer_detail(layer, self._hooks, statistics, width)
            made = made_of(layer, self._known_here, self.context.sae_id)
            content = blocks(content, *self.more_detail(layer.name, width), *made)
        of = self._known if self._hooks is None else self._known_here
        large = self.has_class("-tall") and self.has_class("-very-wide")
        if of is not None and (self._hooks is None or large):
            models = models_of(self.context.runs(), self.context.saes())
            say = overview if self._hooks is None else model_and_others
            said = say(of, self._tree.layers, models, width)
            if self._hooks is None and width >= _BESIDE:
                content = beside(content, said.pop(0), width)
            content = blocks(content, *said)
        if of is not None and large:
            content = blocks(content, *captured_texts(of, width, self._room_below(content)))
        self.query_one("#layer-text", Static).update(content)

    def _room_below(self, content: Content) -> int:
        """The lines that the facts leave empty, of those that they can have."""
        most = round(self.query_one("#layer").size.height * _FACTS_SHARE)
        return most - len(content.plain.splitlines()) - 1

    # Statistics.

    def action_edit_text(self) -> None:
        self.query_one("#probe-text").focus()

    def action_measure(self) -> None:
        layer = self.query_one("#layers", RowList).key
        text = self.query_one("#probe-text", Area).text
        if layer is None or self.is_working("statistics"):
            return
        if not text.strip():
            self.notify("The text is empty", severity="warning")
            return
        self.leave_field()  # what is typed from here on is meant for the screen
        of = self._wanted()
        if not of[0] and self._read_for is not None:
            of = self._read_for  # the tree may be of another model alone

        specs = [spec.as_json() for spec in self._specs]

        def measure() -> Measured:
            client = self.context.ready_session(*of)
            statistics = client.call("layer_stats", layer=layer, text=text) | {"text": text}
            profile = client.call("profile", text=text)
            return Measured(statistics, profile, client.call("watch", text=text, hooks=specs))

        def show(measured: Measured) -> None:
            state = self.context.session_state
            if of == (state.sae_id, state.alone):
                self._statistics[layer] = measured.statistics
                self._profile = measured.profile
                self.take_found(specs, measured.watched)
            self._show_detail()

        self.in_thread(
            measure,
            show,
            group="statistics",
            failed=self._refused,
            trouble=self.query_one("#layer-trouble", Trouble),
        )


def _listed(result: Any, key: str) -> Rows:
    """The rows of an answer, given as a list or under `key`."""
    rows = result.get(key, result.get("rows", ())) if isinstance(result, dict) else result
    return [row for row in rows if isinstance(row, dict)]
