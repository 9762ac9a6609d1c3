"""What the Control screen adds to the tree: a filter, hooks that act on its text, the profile over
depth, and the ways to Steer and to a capture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.content import Content

from mi_crow.hooks.specs import HookSpec
from mi_crow.mechanistic.vectors.stored import list_vectors
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.screens.base import MiCrowScreen
from tui.screens.control.hooks import (
    detector_content,
    from_form,
    hook_fields,
    hook_rows,
    nudged,
)
from tui.screens.control.known import KnownModel, width_of
from tui.screens.control.profile import profile_charts
from tui.screens.vectors.ways import HasVectors
from tui.text import number, printable
from tui.widgets.area import Area
from tui.widgets.facts import section
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.prompt_line import PromptLine

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.interventions import Intervention
    from mi_crow.mechanistic.vectors.stored import VectorSummary
    from tui.screens.control.tree import LayerTree
    from tui.widgets.forms.fields import FormField

_CHART_LINES = 6
_LARGE = 60  # lines of the screen from which charts grow, by one for six more


@dataclass(frozen=True)
class Measured:
    """What the session found on one text."""

    statistics: dict[str, Any]
    profile: dict[str, Any]
    watched: dict[str, Any]


class WatchesLayers(HasVectors, MiCrowScreen):
    """The part of Control beside the tree. Its body has `#layers`, `#own-hooks`, the text and a
    prompt line."""

    if TYPE_CHECKING:
        _tree: LayerTree
        _profile: dict[str, Any]
        _words: str
        _read_for: tuple[str, messages.ModelAlone | None] | None

        @property
        def _known_here(self) -> KnownModel | None: ...
        def _show_rows(self) -> None: ...
        def _show_detail(self) -> None: ...
        def action_measure(self) -> None: ...

    def __init__(self) -> None:
        super().__init__()
        self._specs: list[HookSpec] = []  # in the order in which they act
        self._found: list[Any] = []  # what each of them found, as of the last measurement
        self._kl: float | None = None
        self._vector_layers: dict[str, tuple[str, ...]] = {}  # of those on Steer's stack

    @property
    def hook_list(self) -> RowList:
        return self.query_one("#own-hooks", RowList)

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        text = self.query_one("#probe-text", Area).text
        return {"text": text, "hooks": [spec.as_json() for spec in self._specs]}

    def restore(self, saved: JsonObject) -> None:
        area = self.query_one("#probe-text", Area)
        area.text = saved.text("text", area.text)
        self._specs = [HookSpec.from_json(one) for one in saved.array("hooks", [])]
        self._show_hooks()

    # The filter.

    def action_filter(self) -> None:
        hint = "words of a name, a kind or a point · enter keeps them · esc shows all"
        self.query_one(PromptLine).ask("filter", "layers with", self._words, hint=hint)

    @on(PromptLine.Typed)
    @on(PromptLine.Answered)
    def _filter(self, message: "PromptLine.Typed | PromptLine.Answered") -> None:
        if message.purpose == "filter" and message.value != self._words:
            self._words = message.value
            self._show_rows()
        elif isinstance(message, PromptLine.Answered):
            self.vector_answered(message.purpose, message.value)

    def close_popup(self) -> bool:
        return self.query_one(PromptLine).close() or self.clear_filter()

    def clear_filter(self) -> bool:
        """Shows all layers; False when all were shown."""
        if not self._words:
            return False
        self._words = ""
        self._show_rows()
        return True

    # Hooks.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("switch", "remove"):
            return bool(self._specs)
        if action == "nudge":
            place = self._place() if self.is_mounted else None
            return place is not None and self._specs[place].changes
        return True

    def action_add(self) -> None:
        layer = self.query_one("#layers", RowList).key or ""
        point = next((one.point for one in self._tree.layers if one.name == layer), "")
        self._ask_for_hook("New hook", hook_fields(point or layer), "Add", len(self._specs))

    @on(RowList.Opened, "#own-hooks")
    def _edit(self, event: RowList.Opened) -> None:
        spec = self._specs[int(event.key)]
        self._ask_for_hook("Hook", hook_fields("", spec), "Apply", int(event.key))

    def _ask_for_hook(
        self, title: str, fields: "Sequence[FormField]", button: str, place: int
    ) -> None:
        known = self._known_here
        read = from_form if known is None else partial(from_form, width_of=partial(width_of, known))
        way = "app.control", "list.open" if title == "Hook" else "control.new"
        popup = FormPopup(title, fields, read, button, way=way)
        self.app.push_screen(popup, partial(self._entered, place))

    def _entered(self, place: int, spec: HookSpec | None) -> None:
        if spec is not None:
            kept = self._specs[place].enabled if place < len(self._specs) else True
            self._specs[place : place + 1] = [replace(spec, enabled=kept)]
            self._changed()
            self.hook_list.cursor = place

    def action_switch(self) -> None:
        place = self._place()
        if place is not None:
            spec = self._specs[place]
            self._specs[place] = replace(spec, enabled=not spec.enabled)
            self._changed()

    @on(RowList.Highlighted, "#own-hooks")
    def _may_nudge(self) -> None:
        self.refresh_bindings()

    def action_nudge(self, steps: int) -> None:
        """A controller's value a little lower or higher; what that changes is measured again."""
        place = self._place()
        if place is not None:
            self._specs[place] = nudged(self._specs[place], steps)
            self._changed()

    def action_remove(self) -> None:
        place = self._place()
        if place is not None:
            del self._specs[place]
            self._changed()

    def _place(self) -> int | None:
        key = self.hook_list.key
        return int(key) if key is not None else None

    def _changed(self) -> None:
        """What was found is not of these hooks any more; the next measurement says it."""
        self._found, self._kl = [], None
        self._show_hooks()
        if self._profile:  # it was measured before: again at once
            self.when_rested("hooks", self.action_measure)

    def _show_hooks(self) -> None:
        self.hook_list.set_rows(hook_rows(self._specs, self._found, self._kl))
        self.hook_list.styles.height = min(max(len(self._specs), 1), 6)
        for heading in self.query(ListHeading):
            heading.refresh()
        self.refresh_bindings()
        self._show_rows()

    def take_found(self, specs: Sequence[Any], watched: dict[str, Any]) -> None:
        """Shows what the hooks found, unless they are others by now."""
        if [spec.as_json() for spec in self._specs] == list(specs):
            self._found, self._kl = list(watched.get("hooks") or ()), watched.get("kl")
            self._show_hooks()

    # Beside the layer.

    def more_detail(self, layer: str, width: int) -> list[Content]:
        """The hook under the cursor, the effect of all, and the profile with this layer in it."""
        parts = []
        place = self._place()
        if place is not None and place < len(self._found) and self._found[place]:
            found = detector_content(self._found[place], width)
            parts.append(section("Detector", found))
        if self._kl is not None:
            words = f"KL {number(self._kl, 3)} nats a token from the plain model"
            parts.append(section("Controllers", Content.styled(words, "$foreground")))
        elif self._found and any(one.changes and one.enabled for one in self._specs):
            words = "the model's predictions are not finite numbers; lower the hooks' values"
            parts.append(section("Controllers", Content.styled(words, "$error")))
        here = [one for one in self.context.steered if layer in self._layers_of(one)]
        if here:
            words = Content("\n").join(
                Content.assemble(("◆ ", "$accent"), printable(one.describe())) for one in here
            )
            parts.append(section("On the stack of Steer", words))
        lines = _CHART_LINES + max(self.size.height - _LARGE, 0) // 6
        charts = profile_charts(self._profile, self._tree.block_of(layer), width, lines)
        if charts is not None:
            parts.append(charts)
        return parts

    def _named(self, layer: str) -> str:
        """The module behind a point's short name, where it is in the tree."""
        return next((one.name for one in self._tree.layers if one.point == layer), layer)

    def _steered_layers(self) -> set[str]:
        """The layers that the stack of Steer changes."""
        return {name for one in self.context.steered for name in self._layers_of(one)}

    def _layers_of(self, one: "Intervention") -> set[str]:
        """The modules that an intervention changes."""
        if one.aim.kind == "vector":
            names: tuple[str, ...] = self._vector_layers.get(one.aim.name, ())
        elif one.aim.of_sae:
            sae_id = one.sae or self.context.sae_id
            names = tuple(sae.layer for sae in self.context.saes() if sae.sae_id == sae_id)
        else:
            names = (one.layer or one.aim.name,)
        return {self._named(name) for name in names if name}

    def look_at_stack(self) -> None:
        """Shows the stack of Steer on the tree; where its vectors act is read from their files."""
        names = {one.aim.name for one in self.context.steered if one.aim.kind == "vector"}
        if names - self._vector_layers.keys():
            self.in_thread(
                partial(list_vectors, self.context.workspace), self._keep_layers, group="stack"
            )
        self._show_rows()

    def _keep_layers(self, found: "Sequence[VectorSummary]") -> None:
        self._vector_layers = {one.name: tuple(one.widths) for one in found}
        self._show_rows()

    # Ways from here.

    async def action_steer(self) -> None:
        if (layer := self.query_one("#layers", RowList).key) is not None:
            await self.mi_crow.go("steer", messages.LayerToSteer(layer))

    async def action_capture(self) -> None:
        layer, (_, model) = self.query_one("#layers", RowList).key, self.vector_place()
        if layer is not None:
            await self.mi_crow.go("runs", messages.CaptureLayer(model, layer))

    def action_vector(self) -> None:
        """The form of a vector at the layer under the cursor."""
        self.make_vector(*self.vector_place())

    def vector_place(self) -> tuple[str, str]:
        """The layer under the cursor, by its hook point where it has one, and the tree's model."""
        layer = self._tree.get(self.query_one("#layers", RowList).key)
        state, sae, usual = self.context.session_state, self.context.sae(), None
        if self._read_for is not None and state.phase == "ready":
            model = state.model_id
        elif sae is not None:
            model = sae.model_id
        else:
            usual = self.context.usual_model()
            model = usual.model if usual is not None else ""
        return (layer.point or layer.name) if layer is not None else "", model or ""
