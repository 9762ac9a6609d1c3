"""Screen 4, Steer: a prompt, a stack of interventions, baseline and steered text side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Label, Static

from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from tui import messages
from tui.actions import bindings
from tui.annotate import write
from tui.clipboard import copy
from tui.screens.base import MiCrowScreen
from tui.screens.steer import stack as stacks
from tui.screens.steer import writing
from tui.screens.steer.keeping import how_made, keep
from tui.screens.steer.presets import PresetPopup
from tui.text import number, printable
from tui.widgets.field import Area, Field
from tui.widgets.form import FormPopup
from tui.widgets.prompt_line import PromptLine
from tui.widgets.row_list import RowList
from tui.widgets.stream_text import StreamText

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations

SIDES = ("baseline", "steered")
_EMPTY = {
    "baseline": "ctrl+r writes what the model says by itself",
    "steered": "and what it says under the interventions",
}


class SteerScreen(MiCrowScreen):
    """What the model writes with some of its features changed."""

    NAME = "steer"
    HOME = "#steer-stack"
    CSS_PATH = ["../../widgets/widgets.tcss", "steer.tcss"]
    BINDINGS = bindings("steer")

    def __init__(self) -> None:
        super().__init__()
        self._stack: list[Intervention] = []
        self._names: dict[int, str] = {}
        self._plan: writing.Plan | None = None  # what is being written, or was last
        self._busy = False
        self._stopped = False
        self._done: list[writing.PassageDone] = []

    def compose_body(self) -> ComposeResult:
        with Container(id="steer-top"):
            with Vertical(id="steer-ask"):
                yield Area(id="steer-prompt", placeholder="A prompt that the model goes on from")
                with Horizontal(id="steer-settings"):
                    for name, label, value in (
                        ("tokens", "tokens", "64"),
                        ("temperature", "temp", "0.8"),
                        ("seed", "seed", "0"),
                    ):
                        yield Label(label, classes="steer-label")
                        yield Field(value, id=f"steer-{name}", compact=True)
                    yield Button("Run", id="steer-button", compact=True)
            with Vertical(id="steer-changes"):
                yield Static(id="stack-title", classes="related-title", markup=False)
                yield RowList(
                    stacks.STACK_COLUMNS,
                    empty="none yet: a adds one",
                    id="steer-stack",
                )
        with Container(id="steer-texts"):
            for side in SIDES:
                with Vertical(classes="steer-side"):
                    yield Static(id=f"title-{side}", classes="related-title", markup=False)
                    yield StreamText(id=f"text-{side}", empty=_EMPTY[side])
        yield PromptLine()

    def on_mount(self) -> None:
        self._show_stack()
        self._show_titles()

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    @property
    def area(self) -> Area:
        return self.query_one("#steer-prompt", Area)

    @property
    def stack_list(self) -> RowList:
        return self.query_one("#steer-stack", RowList)

    @property
    def intervention(self) -> Intervention | None:
        """The one under the cursor."""
        key = self.stack_list.key
        return self._stack[int(key)] if key is not None and self._stack else None

    def _text(self, side: str) -> StreamText:
        return self.query_one(f"#text-{side}", StreamText)

    # The stack.

    def on_send_to_steer(self, message: messages.SendToSteer) -> None:
        place = next(
            (n for n, one in enumerate(self._stack) if one.feature == message.feature),
            None,
        )
        if place is None:
            place = len(self._stack)
            self._stack.append(stacks.first_for(message.feature))
        self._show_stack()
        self.stack_list.cursor = place
        self.stack_list.focus()
        self._read_names()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        self._read_names()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._read_names()

    def _read_names(self) -> None:
        self.run_worker(self._names_of_stack, thread=True, group="names", exit_on_error=False)

    def _names_of_stack(self) -> None:
        store = self.context.features
        features = [one.feature for one in self._stack]
        known = [feature for feature in features if feature is not None]
        names: dict[int, str] = {}
        if store is not None and known:
            store.refresh_concepts()
            total = store.meta().n_features
            rows = store.rows([feature for feature in known if feature < total])
            names = {row.feature: row.concept or row.top_label or "" for row in rows}
        self.app.call_from_thread(self._named, names)

    def _named(self, names: dict[int, str]) -> None:
        self._names = names
        self._show_stack()

    def _show_stack(self) -> None:
        count = f"  {len(self._stack)}" if self._stack else ""
        title = Content.assemble(("Interventions", "bold $primary"), (count, "$muted"))
        self.query_one("#stack-title", Static).update(title)
        self.stack_list.set_rows(stacks.stack_rows(self._stack, self._names))
        self.refresh_bindings()

    def action_add(self) -> None:
        self._ask(None)

    @on(RowList.Opened)
    def _edit(self, event: RowList.Opened) -> None:
        self._ask(int(event.key))

    def _ask(self, place: int | None) -> None:
        sae = self.context.sae()
        layers = (sae.layer,) if sae is not None and sae.layer else ()
        one = None if place is None else self._stack[place]
        title = "New intervention" if one is None else "Intervention"
        popup = FormPopup(title, stacks.form_fields(one, layers), stacks.submit_form, "Take it")
        self.app.push_screen(popup, partial(self._taken, place))

    def _taken(self, place: int | None, answer: str | None) -> None:
        if answer is None:
            return
        one = Intervention.from_json(json.loads(answer))
        if place is None:
            place = len(self._stack)
            self._stack.append(one)
        else:
            self._stack[place] = one
        self._show_stack()
        self.stack_list.cursor = place
        self._read_names()

    def action_remove(self) -> None:
        if self.intervention is not None:
            del self._stack[self.stack_list.cursor]
            self._show_stack()

    def action_nudge(self, steps: int) -> None:
        one = self.intervention
        if one is not None:
            self._stack[self.stack_list.cursor] = stacks.nudged(one, steps)
            self._show_stack()

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
        self.prompt.ask("sweep", label, values, hint="enter writes one text each", select=True)

    def _sweep(self, text: str) -> None:
        one, place = self.intervention, self.stack_list.cursor
        if one is None:
            return
        try:
            values = stacks.strengths(text)
        except UserError as error:
            self.notify(error.sentence, severity="error", markup=False)
            return
        changed = [replace(one, value=value) for value in values]
        plans = [(*self._stack[:place], each, *self._stack[place + 1 :]) for each in changed]
        self._write(tuple(plans), tuple(stacks.change_text(each) for each in changed))

    def _write(self, plans: tuple[tuple[Intervention, ...], ...], titles: tuple[str, ...]) -> None:
        prompt = self.area.text
        if self._busy:
            return
        try:
            if not prompt.strip():
                raise UserError("type a prompt first")
            settings = writing.read_settings(
                *(
                    self.query_one(f"#steer-{name}", Field).value
                    for name in ("tokens", "temperature", "seed")
                )
            )
        except UserError as error:
            self.notify(error.sentence, severity="error", markup=False)
            return
        self._plan = writing.Plan(prompt, plans, titles, settings)
        self._busy, self._stopped, self._done = True, False, []
        for side in SIDES:
            self._text(side).clear()
        loaded = self.context.session_state.phase == "ready"
        self._show_titles("writing…" if loaded else "loading the model…")
        self.run_worker(
            partial(self._work, self._plan), thread=True, group="write", exit_on_error=False
        )

    def _work(self, plan: writing.Plan) -> None:
        try:
            client = self.context.ready_session()
        except MiCrowError as error:
            self.post_message(writing.WritingEnded(error.sentence))
            return
        writing.write(client, plan, self.post_message, lambda: self._stopped)

    def on_passage_started(self, message: writing.PassageStarted) -> None:
        assert self._plan is not None
        first = message.place == 0
        if first:
            self._text("baseline").start(self._plan.prompt)
        self._text("steered").start(self._plan.prompt, message.title, keep=not first)
        self._show_titles("writing…")

    def on_text_arrived(self, message: writing.TextArrived) -> None:
        if message.side in SIDES:
            self._text(message.side).append(message.text)

    def on_passage_done(self, message: writing.PassageDone) -> None:
        self._done.append(message)
        if message.place == 0:
            self._text("baseline").put(message.baseline)
        self._text("steered").put(message.steered)

    def on_writing_ended(self, message: writing.WritingEnded) -> None:
        self._busy = False
        if message.error:
            self.notify(printable(message.error), severity="error", markup=False)
        self._show_titles("failed" if message.error else "stopped" if self._stopped else "")
        self.refresh_bindings()

    def stop_running(self) -> bool:
        if not self._busy or self._stopped:
            return False
        self._stopped = True
        self.run_worker(
            lambda: self.context.session.interrupt(None), thread=True, exit_on_error=False
        )
        return True

    def _show_titles(self, state: str = "") -> None:
        last = self._done[-1] if self._done else None
        spaced = self._plan is not None and self._plan.prompt.endswith(" ")
        plain = "the prompt ends with a space" if spaced else "no change"
        words = {"baseline": plain, "steered": stacks.stack_text(self._stack)}
        readings = {"baseline": state, "steered": state}
        if last is not None and not state:
            readings["steered"] = metrics_text(last)
        for side in SIDES:
            title = Content.assemble(
                (side.title(), "bold $primary"),
                (f"  {words[side]}", "$muted"),
                (f"   {readings[side]}" if readings[side] else "", "$accent"),
            )
            self.query_one(f"#title-{side}", Static).update(title)

    # Keeping.

    def work_failed(self) -> None:
        if self._busy:
            self._busy = False
            self._show_titles("failed")

    def close_popup(self) -> bool:
        return self.prompt.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("remove", "nudge", "sweep"):
            return self.intervention is not None if self.is_mounted else False
        if action in ("save", "copy"):
            return bool(self._done) and not self._busy
        if action == "save_preset":
            return bool(self._stack)
        return True

    def action_edit_prompt(self) -> None:
        self.area.focus()

    def action_presets(self) -> None:
        self.run_worker(self._read_presets, thread=True, group="presets", exit_on_error=False)

    def _read_presets(self) -> None:
        presets = self.context.annotations.presets()
        self.app.call_from_thread(
            lambda: self.app.push_screen(PresetPopup(presets), self._use_preset)
        )

    def _use_preset(self, interventions: Sequence[Intervention] | None) -> None:
        if interventions is not None:
            self._stack = [*interventions]
            self._show_stack()
            self._read_names()

    def action_save_preset(self) -> None:
        self.prompt.ask("preset", "save the stack as", placeholder="a name")

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if message.purpose == "sweep":
            self._sweep(message.value)
        elif message.purpose == "preset" and message.value:
            name, interventions = message.value, [one.as_json() for one in self._stack]

            def change(annotations: "Annotations") -> str:
                annotations.save_preset(name, interventions)
                return f"Saved the preset “{name}”"

            write(self, change)

    def action_save(self) -> None:
        if self._plan is not None and self._done:
            made = how_made(self.context)
            write(self, partial(keep, self._plan, tuple(self._done), made))

    def action_copy(self) -> None:
        baseline, steered = (self._text(side).text for side in SIDES)
        prompt = self._plan.prompt if self._plan else ""
        text = f"prompt\n{prompt}\n\nbaseline\n{baseline}\n\nsteered\n{steered}\n"
        copy(self.app, text, "both texts")


def metrics_text(done: writing.PassageDone) -> str:
    """`23.1 tokens/s · KL 0.41`."""
    parts = []
    speed, kl = done.metrics.get("tokens_s"), done.metrics.get("kl")
    if isinstance(speed, int | float):
        parts.append(f"{number(speed, 1)} tokens/s")
    if isinstance(kl, int | float):
        parts.append(f"KL {number(kl, 2)}")
    return " · ".join(parts)
