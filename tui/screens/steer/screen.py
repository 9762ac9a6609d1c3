"""Screen 4, Steer: a prompt, a stack of interventions, baseline and steered text side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Button, Label, Static

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.annotate import write
from tui.clipboard import copy, copy_focused
from tui.preferences.key_words import key
from tui.screens.feature_card import FeatureCard
from tui.screens.no_sae import no_sae
from tui.screens.steer import stack as stacks
from tui.screens.steer import writing
from tui.screens.steer.constraint import HINT, NO_CONSTRAINT, parse_constraint
from tui.screens.steer.heading import (
    copied_text,
    passage_title,
    plan_words,
    prompt_text,
    reading,
    title_content,
)
from tui.screens.steer.keeping import keep
from tui.screens.steer.presets import PresetPopup, lacks_sae
from tui.screens.steer.stack_screen import StackScreen
from tui.text import printable
from tui.widgets.field import Area, Field
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.row_list import RowList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.stream_text import StreamText
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, Preset

SIDES = ("baseline", "steered")
SETTINGS = {"tokens": ("tokens", "64"), "temperature": ("temp", "0.8"), "seed": ("seed", "0")}


class SteerScreen(StackScreen):
    """Baseline and steered generation."""

    NAME = "steer"
    HOME = "#steer-stack"
    CSS_PATH = ["../../widgets/widgets.tcss", "steer.tcss"]
    BINDINGS = bindings("steer")

    def __init__(self) -> None:
        super().__init__()
        self._plan: writing.Plan | None = None  # what is being written, or was last
        self._stopped = False
        self._done: list[writing.PassageDone] = []
        self._state = ""  # of the writing, in a word
        self._constraint = NO_CONSTRAINT

    def compose_body(self) -> ComposeResult:
        with Container(id="steer-top", classes="pane -down -shown"):
            with Vertical(id="steer-ask", classes="pane -across -shown"):
                yield Area(id="steer-prompt", placeholder="A prompt for the model to continue")
                with Horizontal(id="steer-settings"):
                    for name, (label, value) in SETTINGS.items():
                        yield Label(label, classes="steer-label")
                        yield Field(value, id=f"steer-{name}", compact=True)
                    yield Button("Run", id="steer-button", compact=True)
            with Vertical(id="steer-changes", classes="pane -across"):
                yield Static(id="stack-title", classes="related-title", markup=False)
                yield Trouble(id="stack-trouble")
                yield RowList(
                    stacks.STACK_COLUMNS,
                    empty=lambda: f"none yet: {key('steer.new')} adds one",
                    id="steer-stack",
                )
        yield Trouble(id="steer-trouble")
        with Container(id="steer-texts", classes="pane -down"):
            for side in SIDES:
                with Vertical(classes="steer-side"):
                    yield Static(id=f"title-{side}", classes="related-title", markup=False)
                    yield StreamText(id=f"text-{side}")
        yield FeatureCard(self.context)
        yield PromptLine()

    def on_mount(self) -> None:
        self._share_lines()
        self._say_empty()
        self._show_stack()
        self._show_titles()

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    @property
    def area(self) -> Area:
        return self.query_one("#steer-prompt", Area)

    @property
    def _trouble(self) -> Trouble:
        """Why there is no text."""
        return self.query_one("#steer-trouble", Trouble)

    def _text(self, side: str) -> StreamText:
        return self.query_one(f"#text-{side}", StreamText)

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._show_titles()  # the SAE that wrote is named where another one is open
        self._say_empty()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._say_empty()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._say_empty()

    def _say_empty(self) -> None:
        missing = no_sae(self.context)
        baseline = f"{key('steer.run')} generates the baseline"
        for side, words in zip(SIDES, (baseline, "and the steered text"), strict=True):
            other = missing if side == SIDES[0] else ""
            self._text(side).say_empty(other if missing else words)

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        stack = [one.as_json() for one in self._stack]
        within = {"constraint": self._constraint.describe()}
        return {"prompt": self.area.text, "stack": stack, **self._settings(), **within}

    def restore(self, saved: JsonObject) -> None:
        self.area.text = saved.text("prompt", "")
        for name, field in self._setting_fields().items():
            field.value = saved.text(name, field.value)
        self._constraint = parse_constraint(saved.text("constraint", ""))
        self._set_stack([Intervention.from_json(one) for one in saved.array("stack", [])])

    def _setting_fields(self) -> dict[str, Field]:
        return {name: self.query_one(f"#steer-{name}", Field) for name in SETTINGS}

    def _settings(self) -> dict[str, str]:
        """The sampling settings as they are typed."""
        return {name: field.value for name, field in self._setting_fields().items()}

    # Writing.

    @on(Button.Pressed, "#steer-button")
    def action_run(self) -> None:
        self._write((tuple(self._stack),), ())

    def action_sweep(self) -> None:
        one = self.intervention
        if one is None:
            return
        values = ", ".join(f"{share * one.value:g}" for share in (0, 0.5, 1, 1.5))
        label = f"sweep {stacks.change_text(one)} over"
        self.prompt.ask(
            "sweep", label, values, hint="enter generates one text per value", select=True
        )

    def _sweep(self, text: str) -> None:
        one, place = self.intervention, self.stack_list.cursor
        if one is None:
            return
        try:
            values = stacks.strengths(text)
        except UserError as error:
            self.tell(error)
            return
        changed = [replace(one, value=value) for value in values]
        plans = [(*self._stack[:place], each, *self._stack[place + 1 :]) for each in changed]
        self._write(tuple(plans), tuple(stacks.change_text(each) for each in changed))

    def _write(self, plans: tuple[tuple[Intervention, ...], ...], titles: tuple[str, ...]) -> None:
        prompt, sae_id = self.area.text, self.context.sae_id
        if self._is_writing:
            return
        try:
            if not prompt.strip():
                raise UserError("enter a prompt first")
            for stack in plans:
                stacks.check_stack(stack, sae_id, self._weights)
            settings = writing.read_settings(**self._settings(), constraint=self._constraint)
        except UserError as error:
            self._trouble.show(error)
            self.tell(error)
            return
        self._trouble.clear()
        self.leave_field()  # what is typed from here on is meant for the screen
        self._plan = writing.Plan(prompt, plans, titles, settings, sae_id)
        self._stopped, self._done = False, []
        for side in SIDES:
            self._text(side).clear()
        self._share_lines()
        self._show_titles("generating…" if self.context.session_is_ready else "loading the model…")
        self.in_thread(
            partial(self._work, self._plan), self._written, group="write", failed=self._not_written
        )

    def _share_lines(self) -> None:
        """Gives the texts the lines that they will need, so that nothing moves meanwhile."""
        texts, lines = self.query_one("#steer-texts"), 0
        if (plan := self._plan) is not None:
            characters = len(plan.prompt) + 5 * plan.settings.max_new_tokens
            lines = len(plan.stacks) * (characters // max(texts.size.width // 2 - 4, 20) + 2)
        self.query_one(FeatureCard).give(texts, 4 + max(lines, 4))

    @property
    def _is_writing(self) -> bool:
        return self.is_working("write")

    def _work(self, plan: writing.Plan) -> None:
        client = self.context.ready_session(plan.sae_id)
        state = self.context.session_state
        origin = writing.Origin(
            state.model_id, state.revision, state.device, plan.sae_id, state.weights
        )
        writing.write(client, plan, origin, self.post_message, lambda: self._stopped)

    def on_passage_started(self, message: writing.PassageStarted) -> None:
        assert self._plan is not None
        first = message.place == 0
        if first:
            self._text("baseline").start(self._plan.prompt)
        self._text("steered").start(self._plan.prompt, message.title, keep=not first)
        self._show_titles("generating…")

    def on_text_arrived(self, message: writing.TextArrived) -> None:
        if message.side in SIDES:
            self._text(message.side).append(message.text)

    def on_passage_done(self, message: writing.PassageDone) -> None:
        self._done.append(message)
        if message.place == 0:
            self._text("baseline").put(message.baseline)
        self._text("steered").put(message.steered)
        if self._plan is not None and self._plan.titles:
            self._text("steered").retitle(passage_title(self._plan, message))

    def _written(self, _: object = None) -> None:
        self._show_titles("stopped" if self._stopped else "")
        self.refresh_bindings()

    def _not_written(self, error: Exception) -> None:
        if isinstance(error, CancelledError) and self._stopped:
            self._written()
            return
        self._trouble.show(error)
        self.tell(error)
        self._show_titles("failed")
        self.refresh_bindings()

    def stop_running(self) -> bool:
        if not self._is_writing or self._stopped:
            return False
        self._stopped = True
        self.in_thread(partial(self.context.session.interrupt, None))
        return True

    def _show_titles(self, state: str | None = None) -> None:
        """Says over each text what wrote it; `state` None leaves what was said of the writing."""
        if state is not None:
            self._state = state
        plan, state = self._plan, self._state
        words = plan_words(plan, self.context.sae_id) if plan else dict.fromkeys(SIDES, "")
        readings = dict.fromkeys(SIDES, state)
        if plan is not None and not state:
            readings = {
                "baseline": prompt_text(self._done),
                "steered": reading(plan, self._done),
            }
        for side in SIDES:
            title = title_content(side, words[side], readings[side])
            self.query_one(f"#title-{side}", Static).update(title)

    # Keeping.

    def close_popup(self) -> bool:
        return self.prompt.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("remove", "nudge", "sweep"):
            return self.intervention is not None if self.is_mounted else False
        if action in ("save", "copy"):
            return bool(self._done) and not self._is_writing
        if action == "save_preset":
            return bool(self._stack)
        return True

    def action_edit_prompt(self) -> None:
        self.area.focus()

    def action_constrain(self) -> None:
        before = self._constraint.describe()
        self.prompt.ask("constraint", "keep the text within", before, hint=HINT, select=True)

    def _constrain(self, text: str) -> None:
        try:
            self._constraint = parse_constraint(text)
        except UserError as error:
            self.tell(error)

    def action_presets(self) -> None:
        sae_id = self.context.sae_id

        def read() -> "tuple[list[Preset], str | None]":
            presets = self.context.annotations.presets()
            return presets, self.context.weights_of(sae_id) if sae_id and presets else None

        def show(read: "tuple[list[Preset], str | None]") -> None:
            presets, weights = read
            self.app.push_screen(PresetPopup(presets, sae_id, weights), self._use_preset)

        self.in_thread(read, show, group="presets", opens=True)

    def _use_preset(self, stack: Sequence[Intervention] | None) -> None:
        if stack is None:
            return
        sae_id = self.context.sae_id
        if sae_id is None or not lacks_sae(stack):
            self._set_stack(stack)
            return
        popup = Confirm(
            "This preset does not name its SAE.",
            f"Are its features those of {printable(sae_id)}?",
        )
        own = [one.in_sae(sae_id) for one in stack]
        self.app.push_screen(popup, lambda sure: self._set_stack(own) if sure else None)

    def _set_stack(self, stack: Sequence[Intervention]) -> None:
        self._stack = [*stack]
        self._show_stack()
        self._read_names()

    def action_save_preset(self) -> None:
        self.prompt.ask("preset", "save the stack as", placeholder="a name")

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if message.purpose == "sweep":
            self._sweep(message.value)
        elif message.purpose == "constraint":
            self._constrain(message.value)
        elif message.purpose == "preset" and message.value:
            name, stack, sae_id = message.value, tuple(self._stack), self.context.sae_id

            def change(annotations: "Annotations") -> str:
                own = stack
                if sae_id is not None:
                    weights = self.context.weights_of(sae_id)
                    own = [one.in_sae(sae_id, weights) for one in stack]
                annotations.save_preset(name, [one.as_json() for one in own])
                return f"Saved the preset “{name}”"

            write(self.mi_crow, change)

    def action_save(self) -> None:
        if self._plan is not None and self._done:
            write(self.mi_crow, partial(keep, self._plan, tuple(self._done)))

    def action_copy(self) -> None:
        baseline, steered = (self._text(side).text for side in SIDES)
        if isinstance(self.focused, RowList) or self._plan is None:
            copy_focused(self.mi_crow)
        else:
            copy(self.mi_crow, copied_text(self._plan, baseline, steered), "both texts")
