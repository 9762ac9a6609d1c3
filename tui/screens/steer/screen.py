"""Screen 4, Steer: a prompt, a stack of interventions, baseline and steered text side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Button, Label, Static

from mi_crow.clean_text import clean_text
from mi_crow.mechanistic.steering.chat.branches import Branches
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.annotate import NOTHING_SAVED, may_tag, write
from tui.clipboard import copy, copy_focused
from tui.preferences.key_words import key
from tui.screens.feature_card import FeatureCard
from tui.screens.prompted import wrong_in
from tui.screens.steer import stack as stacks
from tui.screens.steer.constraint import HINT, Constraint, parse_constraint
from tui.screens.steer.heading import SideTitle, copied_text
from tui.screens.steer.keeping import keep, sample_of
from tui.screens.steer.measured.measuring import MeasuresStacks
from tui.screens.steer.presets import PresetPopup, Stacks, lacks_sae, read_held
from tui.screens.steer.room import top_lines
from tui.screens.steer.saved_screen import SavedTexts
from tui.screens.steer.writing import Plan
from tui.screens.steer.writing_screen import SETTINGS, SIDES, WritingScreen
from tui.screens.vectors.ways import HasVectors
from tui.text import printable
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.list_popup import Chosen
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.stream_text import StreamText
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


class SteerScreen(HasVectors, SavedTexts, MeasuresStacks, WritingScreen):
    """Baseline and steered generation."""

    NAME = "steer"
    HOME = "#steer-stack"
    CSS_PATH = ["../../widgets/widgets.tcss", "steer.tcss"]
    BINDINGS = bindings("steer")

    def __init__(self) -> None:
        super().__init__()
        self._renamed = ""  # the preset whose new name is asked for

    def compose_body(self) -> ComposeResult:
        stack = RowList(
            stacks.STACK_COLUMNS,
            empty=lambda: f"none yet: {key('steer.new')} adds one",
            id="steer-stack",
        )
        with Container(id="steer-top", classes="pane -down -shown"):
            with Vertical(id="steer-ask", classes="pane -across -shown"):
                yield Static(id="steer-mode", markup=False)
                yield Area(id="steer-prompt")
                with Horizontal(id="steer-settings"):
                    for name, (label, value) in SETTINGS.items():
                        yield Label(label, classes="steer-label")
                        yield Field(value, id=f"steer-{name}", compact=True)
                    yield Button("Run", id="steer-button", compact=True)
            with Vertical(id="steer-changes", classes="pane -across"):
                yield ListHeading("Interventions", stack)
                yield Trouble(id="stack-trouble")
                yield stack
        yield Trouble(id="steer-trouble")
        yield Static(id="steer-job", markup=False)
        with Container(id="steer-texts", classes="pane -down"):
            for side in SIDES:
                with Vertical(classes="steer-side"):
                    yield SideTitle(id=f"title-{side}", classes="related-title", markup=False)
                    yield Static(id=f"figures-{side}", classes="steer-figures", markup=False)
                    yield StreamText(id=f"text-{side}")
        yield FeatureCard(self.context)
        yield PromptLine()

    def on_mount(self) -> None:
        self._share_lines()
        self._show_mode()
        self._say_empty()
        self._show_stack()
        self._show_titles()
        self._show_job()

    # The lines of what is asked and changed.

    def _show_stack(self) -> None:
        super()._show_stack()
        self._share_top()

    @on(Area.Changed, "#steer-prompt")
    def _share_top(self) -> None:
        """A tall screen gives the prompt and the stack what they need, the texts the rest."""
        top, prompt = self.query_one("#steer-top"), self.area.wrapped_document.height
        if self.has_class("-tall") and self.zoomed is None:
            top.styles.height = top_lines(self.size.height, len(self._stack), prompt)
        else:
            top.styles.height = None

    def zoom_changed(self) -> None:
        super().zoom_changed()
        self._share_top()

    def on_resize(self) -> None:
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        self._share_top()
        self._fit_lines()

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        stack = [one.as_json() for one in self._stack]
        return {**self.writing_state(), **self.chat_state(), "stack": stack}

    def restore(self, saved: JsonObject) -> None:
        self.area.begin_with(saved.text("prompt", ""))
        for name, field in self._setting_fields().items():
            field.value = saved.text(name, field.value)
        self._constraint = parse_constraint(saved.text("constraint", ""))
        self.use_model(saved.text("model", ""))
        self.set_stack([Intervention.from_json(one) for one in saved.array("stack", [])])
        self.restore_chat(saved)

    # Sweeps and constraints.

    def action_sweep(self) -> None:
        one = self.intervention
        if one is None:
            return
        values = ", ".join(f"{share * one.value:g}" for share in (0, 0.5, 1, 1.5))
        label = f"sweep {stacks.change_text(one)} over"
        self.prompt.ask(
            "sweep",
            label,
            values,
            hint="enter generates one text per value",
            refuse=partial(wrong_in, stacks.strengths),
            select=True,
        )

    def _sweep(self, text: str) -> None:
        one, place = self.intervention, self.stack_list.cursor
        if one is None or self._is_writing:
            return
        changed = [replace(one, value=value, enabled=True) for value in stacks.strengths(text)]
        plans = [(*self._stack[:place], each, *self._stack[place + 1 :]) for each in changed]
        self._write(tuple(plans), tuple(stacks.change_text(each) for each in changed))

    def action_edit_prompt(self) -> None:
        self.area.focus()

    def action_constrain(self) -> None:
        before = self._constraint.describe()
        self.prompt.ask(
            "constraint",
            "plausible",
            before,
            hint=HINT,
            placeholder="anything goes",
            refuse=partial(wrong_in, parse_constraint),
            select=True,
        )

    def _constrain(self, text: str) -> None:
        wanted = parse_constraint(text)
        if wanted != self._constraint:
            self._constraint = wanted
            self._say_empty()
            self.stack_changed()

    def action_model(self) -> None:
        chosen = self._chosen_model
        models = dict.fromkeys(run.manifest.model_id for run in reversed(self.context.runs()))
        self.prompt.ask(
            "model",
            "steer without an SAE the model",
            chosen.model if chosen else "",
            suggestions=[*models, "sample"],
            placeholder="a Hugging Face id, a folder, or sample",
            hint="enter takes it · empty: the open SAE's",
            select=True,
        )

    # Keeping.

    def close_popup(self) -> bool:
        return self.prompt.close() or self.drop_edit()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("remove", "nudge", "sweep", "switch"):
            return self.intervention is not None if self.is_mounted else False
        if action in ("save", "copy"):
            return self._board is not None and bool(self._board.done) and not self._is_writing
        if action == "sample":
            return self._board is not None and self._board.plan.settings.samples > 1
        if action == "cancel_measuring":
            return self._active_job() is not None
        if action == "go_on":
            return self._said is not None and not self._said.alike
        if action == "save_preset":
            return bool(self._stack)
        return True

    def action_presets(self) -> None:
        sae_id = self.context.sae_id

        def read() -> tuple[Stacks, str | None]:
            presets = {one.name: read_held(one) for one in self.context.annotations.presets()}
            return presets, self.context.weights_of(sae_id) if sae_id and presets else None

        def show(read: tuple[Stacks, str | None]) -> None:
            popup = PresetPopup(read[0], sae_id, read[1])
            self.app.push_screen(popup, partial(self._preset_chosen, read[0]))

        self.in_thread(read, show, group="presets", opens=True)

    def _preset_chosen(self, known: Stacks, choice: Chosen | None) -> None:
        if choice is None:
            return
        name = choice.key
        if choice.action == "remove":

            def remove(annotations: "Annotations") -> str:
                annotations.delete_preset(name)
                return f"Removed the preset “{name}”"

            popup = Confirm(f"Remove the preset “{name}”?", "Its stack is gone then.")
            self.app.push_screen(popup, lambda sure: write(self.mi_crow, remove) if sure else None)
        elif choice.action == "rename":
            self._renamed = name
            self.prompt.ask("preset-name", "call the preset", name, select=True)
        else:
            held = known[name]
            if held is not None:
                self._use_preset(*held)

    def _use_preset(self, stack: Sequence[Intervention], limits: Constraint) -> None:
        def use(stack: Sequence[Intervention]) -> None:
            self._constraint = limits
            self.set_stack(stack)

        sae_id = self.context.sae_id
        if sae_id is None or not lacks_sae(stack):
            use(stack)
            return
        popup = Confirm(
            "This preset does not name its SAE.",
            f"Are its features those of {printable(sae_id)}?",
        )
        own = [one.in_sae(sae_id) for one in stack]
        self.app.push_screen(popup, lambda sure: use(own) if sure else None)

    def action_save_preset(self) -> None:
        if may_tag(self.mi_crow, NOTHING_SAVED):
            self.prompt.ask("preset", "save the stack as", placeholder="a name")

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if self.vector_answered(message.purpose, message.value):
            return
        if message.purpose == "sweep":
            self._sweep(message.value)
        elif message.purpose == "constraint":
            self._constrain(message.value)
        elif message.purpose == "model":
            self.use_model(message.value)
        elif message.purpose == "export":
            self.export_to(message.value)
        elif message.purpose == "preset-name" and message.value:
            old, new = self._renamed, message.value

            def rename(annotations: "Annotations") -> str:
                annotations.rename_preset(old, new)
                return f"“{old}” is called “{new}” now"

            write(self.mi_crow, rename, typed=new, purpose="preset-name")
        elif message.purpose == "preset" and message.value:
            self._save_preset(message.value, tuple(self._stack), self.context.sae_id)

    def _save_preset(self, name: str, stack: Sequence[Intervention], sae_id: str | None) -> None:
        """Saves the stack with its constraint; asks first where another one has that name."""
        limits = self._constraint

        def others() -> bool:
            wanted = clean_text(name).strip()
            held = (one for one in self.context.annotations.presets() if one.name == wanted)
            return any(read_held(one) != (tuple(own_stack()), limits) for one in held)

        def own_stack() -> Sequence[Intervention]:
            if sae_id is None:
                return stack
            weights = self.context.weights_of(sae_id)
            return [one.in_sae(sae_id, weights) for one in stack]

        def change(annotations: "Annotations") -> str:
            held = [one.as_json() for one in own_stack()]
            annotations.save_preset(name, held, limits.plausible, limits.kl_budget)
            return f"Saved the preset “{name}”"

        save = partial(write, self.mi_crow, change, typed=name, purpose="preset")

        def ask(taken: bool) -> None:
            if not taken:
                save()
                return
            popup = Confirm(f"There is a preset “{name}”, of another stack.", "Replace it?")
            self.app.push_screen(popup, lambda sure: save() if sure else None)

        self.in_thread(others, ask, opens=True)

    def action_save(self) -> None:
        board = self._board
        if board is not None and board.saved:
            self.notify("This generation is saved already")
        elif board is not None and board.done and may_tag(self.mi_crow, NOTHING_SAVED):
            write(self.mi_crow, partial(keep, board.plan, tuple(board.done), board.sample))

    async def action_inspect(self) -> None:
        """Shows which features fire on the steered text; of a chat, on the whole of it."""
        if (board := self._board) is not None and board.done:
            if board.plan.chat is not None:
                self._render_chat(board.plan)
                return
            text = board.plan.prompt + sample_of(board.done[0], board.sample).steered.text
            await self.mi_crow.go("inspect", messages.SendToInspect(text=text))

    def _render_chat(self, plan: Plan) -> None:
        said = json.dumps((self._said or Branches()).as_json()["steered"])

        def render() -> str:
            client = self.context.ready_session(plan.sae_id, plan.alone)
            return str(client.call("render", chat=said, sae_id=plan.sae_id)["text"])

        async def show(text: str) -> None:
            await self.mi_crow.go("inspect", messages.SendToInspect(text=text))

        self.in_thread(render, show, group="render")

    def action_copy(self) -> None:
        baseline, steered = (self._text(side).text for side in SIDES)
        if isinstance(self.focused, RowList) or self._board is None:
            copy_focused(self.mi_crow)
        else:
            copy(self.mi_crow, copied_text(self._board.plan, baseline, steered), "both texts")
