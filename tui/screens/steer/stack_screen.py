"""The stack of interventions on the Steer screen: sent here, edited, named."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from textual import on

from mi_crow.errors import MiCrowError
from mi_crow.hooks.specs import HookSpec
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.store.workspace import SaeSummary
from tui import messages
from tui.screens.beginnings import said_of, telling_features
from tui.screens.feature_card import FeatureCard
from tui.screens.prompted import PromptScreen
from tui.screens.steer import stack as stacks
from tui.widgets.forms.fields import Candidate, Values, WrongValueError
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.trouble import Trouble

_MOST_FOUND = 200  # features that are looked at for a name


class StackScreen(PromptScreen):
    """The part of Steer that holds the stack. Its body has `#steer-stack` and its heading."""

    def __init__(self) -> None:
        super().__init__()
        self._stack: list[Intervention] = []
        self._names: dict[int, str] = {}  # of the open SAE's features
        self._weights: str | None = None  # hash of the open SAE's, once it is known

    @property
    def stack_list(self) -> RowList:
        return self.query_one("#steer-stack", RowList)

    @property
    def intervention(self) -> Intervention | None:
        """The one under the cursor."""
        key = self.stack_list.key
        return self._stack[int(key)] if key is not None and self._stack else None

    def stack_changed(self) -> None:
        """What would be written is another text now."""

    def on_send_to_steer(self, message: messages.SendToSteer) -> None:
        sae_id = message.sae_id or self.context.sae_id
        features = (message.feature, *message.more)
        targets = [message.group] if message.group else [f"feature:{one}" for one in features]
        sae = self.context.find_sae(sae_id)
        places = [self._place_of(stacks.first_on(target, sae, sae_id)) for target in targets]
        self._go_to(places[0])
        self._read_names()

    def on_layer_to_steer(self, message: messages.LayerToSteer) -> None:
        self._put(Intervention(f"layer:{message.layer}", "scale", 1.0))

    def on_vector_to_steer(self, message: messages.VectorToSteer) -> None:
        self._put(Intervention(f"vector:{message.name}", "add", stacks.FIRST_NORMS, "norm"))

    def _put(self, new: Intervention) -> None:
        self._go_to(self._place_of(new))

    def _place_of(self, new: Intervention) -> int:
        """Where that target is on the stack; it is put there when it is not."""
        for place, one in enumerate(self._stack):
            if one.target == new.target:
                return place
        self._stack.append(new)
        return len(self._stack) - 1

    def _go_to(self, place: int) -> None:
        self._show_stack()
        self.stack_list.cursor = place
        self.stack_list.focus()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        self._read_names()

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        self._stack = stacks.of_renamed(self._stack, message.old, message.new)
        self._show_stack()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._names, self._weights = {}, None
        self._show_stack()
        self._read_names()

    def _read_names(self) -> None:
        """Reads what the open SAE's features on the stack are called, and its weights' hash."""
        sae_id = self.context.sae_id
        own = {one.feature for one in self._stack if one.sae == sae_id and one.feature is not None}
        if sae_id is not None and own:
            names = partial(self._names_of, sae_id, sorted(own))
            trouble = self.query_one("#stack-trouble", Trouble)
            self.in_thread(names, partial(self._named, sae_id), group="names", trouble=trouble)
            weights = partial(self.context.weights_of, sae_id)  # reads the file the first time
            self.in_thread(weights, partial(self._weighed, sae_id), group="weights")

    def _names_of(self, sae_id: str, features: Sequence[int]) -> dict[int, str]:
        rows = self.context.rows_of(sae_id, features)
        return {feature: said_of(row) for feature, row in rows.items()}

    def _named(self, sae_id: str, names: dict[int, str]) -> None:
        if sae_id == self.context.sae_id:  # else another one was opened meanwhile
            self._names = names
            self._show_stack()

    def _weighed(self, sae_id: str, weights: str | None) -> None:
        if sae_id != self.context.sae_id:
            return
        self._weights = weights
        # From here on the stack means these weights, even if the SAE is trained again.
        self._stack = [
            one.in_sae(sae_id, weights) if one.sae == sae_id else one for one in self._stack
        ]
        self._show_stack()

    def _show_stack(self) -> None:
        other_saes = {
            place: stacks.other_sae_text(one, self.context.sae_id, self._weights)
            for place, one in enumerate(self._stack)
        }
        self.stack_list.set_rows(stacks.stack_rows(self._stack, self._names, other_saes))
        self.query_one(ListHeading).refresh()
        self.context.steered = tuple(one for one in self._stack if one.enabled)
        self.refresh_bindings()
        self._show_card()

    @on(RowList.Highlighted, "#steer-stack")
    def _show_card(self) -> None:
        """The feature under the cursor, where it is one of the open SAE."""
        one = self.intervention
        own = one is not None and one.sae in (None, self.context.sae_id)
        self.query_one(FeatureCard).show_feature(one.feature if one is not None and own else None)

    def action_add(self) -> None:
        self._ask(None)

    @on(RowList.Opened)
    def _edit(self, event: RowList.Opened) -> None:
        self._ask(int(event.key))

    def _ask(self, place: int | None) -> None:
        from mi_crow.mechanistic.vectors.stored import list_vectors

        workspace, store, layers = self.context.workspace, self.context.features, self._layers

        def read() -> tuple[Candidate, ...]:
            features = telling_features(store) if store is not None else []
            vectors = [f"vector:{vector.name}" for vector in list_vectors(workspace)]
            others = [Candidate(text) for text in (*layers, *vectors)]
            return (*others, *(stacks.feature_candidate(row) for row in features))

        self.in_thread(read, partial(self._ask_with, place), group="targets", opens=True)

    @property
    def _layers(self) -> tuple[str, ...]:
        sae = self.context.sae()
        return (sae.layer,) if sae is not None and sae.layer else ()

    def _target_named(self, words: str) -> str:
        """The target that words stand for. Blocks on the disk; raises UserError."""
        store = self.context.features
        found = store.search(words, _MOST_FOUND) if store is not None else []
        return stacks.named_target(words, found, self._layers)

    def _from_form(self, sae: SaeSummary | None, values: Values) -> Intervention:
        """The intervention of the form. Blocks on the disk; raises what is wrong, also a feature,
        tag, vector or SAE that is not there or of another model, and a neuron that its layer does
        not have, as far as files say it."""
        from mi_crow.language_model.outline import outline_of
        from mi_crow.mechanistic.steering.fits import check_stack

        one = stacks.from_form(values, named=self._target_named)
        sae_id, aim = sae.sae_id if sae is not None else None, one.aim
        whole = one if sae_id is None else one.in_sae(sae_id)
        alone = replace(whole, condition=None, rivals="", op="add" if whole.rivals else whole.op)
        try:
            check_stack(self.context.workspace, [alone], sae_id)
            if aim.neuron is not None and sae is not None and sae.model_id:
                found = outline_of(sae.model_id)
                width = None if found is None else found.width_at(aim.name)
                if width is not None:
                    HookSpec(aim.name, "neurons", 0.0, (aim.neuron,)).check_width(width)
        except MiCrowError as error:
            raise WrongValueError("target", str(error), hint=error.hint) from error
        for name, checked in (("rivals", replace(whole, condition=None)), ("condition", whole)):
            try:
                check_stack(self.context.workspace, [checked], sae_id)
            except MiCrowError as error:
                raise WrongValueError(name, str(error), hint=error.hint) from error
        return one

    def _ask_with(self, place: int | None, targets: Sequence[Candidate]) -> None:
        if place is not None and place >= len(self._stack):
            return  # removed meanwhile
        one = None if place is None else self._stack[place]
        title = "New intervention" if one is None else "Intervention"
        sae_id = self.context.sae_id
        sae = self.context.find_sae(sae_id)
        two = sae is not None and bool(sae.models)
        fields = stacks.form_fields(one, targets, sae_id, adds=two)
        way = "app.steer", "steer.new" if one is None else "list.open"
        popup = FormPopup(title, fields, partial(self._from_form, sae), "Apply", way=way)
        self.app.push_screen(popup, partial(self._entered, place, sae_id))

    def _entered(self, place: int | None, sae_id: str | None, one: Intervention | None) -> None:
        if one is None:
            return
        if sae_id is not None:
            one = one.in_sae(sae_id)  # a plain number is a feature of the SAE that was open
        if place is not None:
            before = self._stack[place]
            one = replace(one, enabled=before.enabled)
            if one.target == before.target:
                one = replace(one, weights=before.weights)
        if place is None:
            place = len(self._stack)
            self._stack.append(one)
        else:
            self._stack[place] = one
        self._show_stack()
        self.stack_list.cursor = place
        self._read_names()
        self.stack_changed()

    def action_remove(self) -> None:
        if self.intervention is not None:
            del self._stack[self.stack_list.cursor]
            self._show_stack()
            self.stack_changed()

    def action_switch(self) -> None:
        one = self.intervention
        if one is not None:
            self._stack[self.stack_list.cursor] = replace(one, enabled=not one.enabled)
            self._show_stack()
            self.stack_changed()

    def action_nudge(self, steps: int) -> None:
        one = self.intervention
        if one is not None:
            self._stack[self.stack_list.cursor] = stacks.nudged(one, steps)
            self._show_stack()
            self.stack_changed()
