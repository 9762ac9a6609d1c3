"""The writing on the Steer screen: both sides of every sample as they come, again after each change
of a strength, and what the titles say of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from textual import on
from textual.widgets import Button

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.steering.chat.branches import Branches, transcript
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.session.protocol import SessionDied
from tui import messages
from tui.preferences.key_words import key
from tui.screens.feature_card import FeatureCard
from tui.screens.no_sae import no_sae
from tui.screens.steer import stack as stacks
from tui.screens.steer import writing
from tui.screens.steer.board import Board, target_read
from tui.screens.steer.constraint import NO_CONSTRAINT
from tui.screens.steer.heading import SideTitle, plan_words, prompt_text, reading, samples_text
from tui.screens.steer.room import expected_lines, fitted_lines
from tui.screens.steer.stack_screen import StackScreen
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.lists.row_list import RowList
from tui.widgets.stream_text import StreamText
from tui.widgets.trouble import Trouble

SIDES = ("baseline", "steered")
SETTINGS = {
    "tokens": ("tokens", "64"),
    "temperature": ("temp", "0.8"),
    "seed": ("seed", "0"),
    "samples": ("n", "1"),
}


class WritingScreen(StackScreen):
    """The part of Steer that writes. Its body has the prompt, the settings and the two texts."""

    def __init__(self) -> None:
        super().__init__()
        self._board: Board | None = None  # what is being written, or was last
        self._runs = 0
        self._stopped = False
        self._texts_grow = False
        self._state = ""  # of the writing, in a word
        self._constraint = NO_CONSTRAINT
        self._chosen_model: messages.ModelAlone | None = None  # to be steered without an SAE

    @property
    def model_alone(self) -> messages.ModelAlone | None:
        """The model that is steered without an SAE: the one chosen, or while no SAE is open that of
        the newest run. None: the open SAE's."""
        if self._chosen_model is not None:
            return self._chosen_model
        return self.context.usual_model() if self.context.sae_id is None else None

    @property
    def area(self) -> Area:
        return self.query_one("#steer-prompt", Area)

    @property
    def _trouble(self) -> Trouble:
        """Why there is no text."""
        return self.query_one("#steer-trouble", Trouble)

    def _text(self, side: str) -> StreamText:
        return self.query_one(f"#text-{side}", StreamText)

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        if self._board is not None:
            self._board.rename_sae(message.old, message.new)
            self._show_titles()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._show_titles()  # the SAE that wrote is named where another one is open
        self._say_empty()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._say_empty()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._say_empty()

    def _say_empty(self) -> None:
        missing = "" if self.model_alone is not None else no_sae(self.context)
        baseline = f"{key('steer.run')} generates the baseline"
        within = self._constraint.words
        steered = f"and the steered text{f', {within}' if within else ''}"
        for side, words in zip(SIDES, (baseline, steered), strict=True):
            other = missing if side == SIDES[0] else ""
            self._text(side).say_empty(other if missing else words)

    def _setting_fields(self) -> dict[str, Field]:
        return {name: self.query_one(f"#steer-{name}", Field) for name in SETTINGS}

    def _settings(self) -> dict[str, str]:
        """The sampling settings as they are typed."""
        return {name: field.value for name, field in self._setting_fields().items()}

    # What is written.

    @on(Button.Pressed, "#steer-button")
    def action_run(self) -> None:
        if not self._is_writing:
            self._write((tuple(self._stack),), ())

    def stack_changed(self) -> None:
        """After a change of the stack its text is written again, once the keys rest; what is
        written now is of the old one."""
        if self._board is None or self._board.plan.titles or self._stopped:
            return
        if self._is_writing:
            self._runs += 1  # nothing of it counts from here on
            self.context.session.interrupt(None)
        self.when_rested("changed", self._write_again)

    def _write_again(self) -> None:
        if self._board is not None:
            self._write((tuple(self._stack),), (), self._board)

    def _write(
        self,
        plans: tuple[tuple[Intervention, ...], ...],
        titles: tuple[str, ...],
        before: Board | None = None,
    ) -> None:
        """Writes under each stack; baselines that `before` has already stay."""
        alone = self.model_alone
        sae_id = self.context.sae_id if alone is None else None
        try:
            prompt, chat = self.asked(before)
            for stack in plans:
                stacks.check_stack(stack, sae_id, self._weights, self._of_same_model())
            settings = writing.read_settings(**self._settings(), constraint=self._constraint)
        except UserError as error:
            self._trouble.show(error)
            self.tell(error)
            if before is None and not self.area.text.strip():
                self.area.focus()
            elif self._is_outdated:  # it was interrupted for what cannot be written
                self._show_titles("stopped")
            return
        self._trouble.clear()
        self._runs += 1
        plan = writing.Plan(
            prompt, plans, titles, settings, sae_id, self._runs, alone=alone, chat=chat
        )
        if before is None:
            self.leave_field()  # what is typed from here on is meant for the screen
        elif plan.same_baseline(before.plan):
            read_for = before.plan.read_for or before.plan.targets
            plan = replace(plan, kept=before.baselines, read_for=read_for)
        sample = min(before.sample, settings.samples - 1) if before is not None else 0
        self._board = Board(plan, sample=sample)
        self._stopped, self._texts_grow = False, True
        self.asking(plan)
        if before is None:
            self._share_lines()
            self._show_texts()
        state = self.context.session_state
        ready = (state.phase, state.sae_id, state.alone) == ("ready", sae_id or "", alone)
        self._show_titles("generating…" if ready else "loading the model…")
        self.in_thread(
            partial(self._work, plan), self._written, group="write", failed=self._not_written
        )
        self.refresh_bindings()

    def asked(self, before: Board | None) -> tuple[str, Branches | None]:
        """The prompt, and the conversation that ends with it where there is one; for a stack that
        was changed that of `before`. Raises UserError."""
        if not self.area.text.strip():
            raise UserError("enter a prompt first")
        return self.area.text, None

    def asking(self, plan: writing.Plan) -> None:
        """The plan is about to be carried out."""

    def _of_same_model(self) -> set[str]:
        """The SAEs whose features may be on the stack, the open one apart unless the model runs
        alone."""
        own, alone = self.context.sae(), self.model_alone
        model = alone.model if alone is not None else own.model_id if own is not None else None
        apart = own.sae_id if alone is None and own is not None else None
        return {
            sae.sae_id
            for sae in self.context.saes()
            if sae.model_id == model and sae.sae_id != apart
        }

    def _share_lines(self) -> None:
        """Gives the texts the lines that they will need, so that nothing moves meanwhile; the card
        of the feature has the others."""
        board, heard = self._board, self.heard()
        plan = board.plan if board is not None else None
        if plan is not None:
            heard = plan.prompt if plan.chat is None else transcript(plan.chat.steered)
        texts = self.query_one("#steer-texts")
        needed = expected_lines(plan, heard, max(texts.size.width // 2 - 4, 20))
        self.query_one(FeatureCard).give(texts, needed, first=bool(heard))

    def _fit_lines(self) -> None:
        """Gives whole texts the lines that they do need."""
        board, texts = self._board, self.query_one("#steer-texts")
        if board is None or not board.done or self._is_writing or not self.is_attached:
            return
        streams = [self._text(side) for side in SIDES]
        rows, shown = [one.row_count for one in streams], [one.size.height for one in streams]
        beside = streams[0].region.y == streams[1].region.y
        now, more = texts.outer_size.height, max if beside else sum
        needed = fitted_lines(now, now - more(shown) + more(rows))
        self.query_one(FeatureCard).give(texts, needed, first=True)

    def heard(self) -> str:
        """What is shown before anything is written."""
        return ""

    @property
    def _is_writing(self) -> bool:
        return self.is_working("write")

    def _work(self, plan: writing.Plan) -> None:
        client = self.context.ready_session(plan.sae_id, plan.alone)
        state = self.context.session_state
        origin = writing.Origin(
            state.model_id, state.revision, state.device, plan.sae_id, state.weights
        )
        over = lambda: self._stopped or self._runs != plan.run  # noqa: E731
        if not over():
            writing.write(client, plan, origin, self.post_message, over)

    @property
    def _is_outdated(self) -> bool:
        """Whether what was written last is of another stack than the one on the screen."""
        return self._board is not None and self._board.plan.run != self._runs

    def _current(self, run: int) -> Board | None:
        """The board, if the message is about what is written now."""
        board = self._board
        return board if board is not None and board.plan.run == run == self._runs else None

    def on_passage_started(self, message: writing.PassageStarted) -> None:
        if (board := self._current(message.run)) is not None:
            board.started = message.place + 1
            self._show_texts()
            self._show_titles("generating…")

    def on_text_arrived(self, message: writing.TextArrived) -> None:
        if (board := self._current(message.run)) is not None:
            board.arrive(message.place, message.side, message.sample, message.text)
            if message.sample == board.sample:
                self._show_texts()

    def on_passage_done(self, message: writing.PassageDone) -> None:
        if (board := self._current(message.run)) is not None:
            board.done.append(message)
            self._show_texts()

    def _written(self, _: object = None) -> None:
        if self._is_outdated and not self._stopped:
            return  # it ended before the model was asked; that of the changed stack comes
        self._end_growth()
        self._show_titles("stopped" if self._stopped else "")
        self.refresh_bindings()
        self.call_after_refresh(self._fit_lines)

    def _not_written(self, error: Exception) -> None:
        if isinstance(error, CancelledError) and self._stopped:
            self._written()
            return
        if isinstance(error, CancelledError) and self._is_outdated:
            return  # that of the changed stack begins when the keys rest
        if isinstance(error, SessionDied):
            error.hint = f"{key('steer.run')} restarts it and writes again"
        self._end_growth()
        self._trouble.show(error)
        self.tell(error)
        self._show_titles("failed")
        self.refresh_bindings()

    def _end_growth(self) -> None:
        self._texts_grow = False
        for side in SIDES:
            self._text(side).end_growth()

    @property
    def can_stop(self) -> bool:
        return self._is_writing and not self._stopped

    def stop_running(self) -> bool:
        if not self.can_stop:
            return False
        self._stopped = True
        self.context.session.interrupt(None)
        return True

    # What is shown.

    def action_sample(self, steps: int) -> None:
        """The next or the previous sample, on both sides."""
        if self._board is not None and self._board.turn(steps):
            self._show_texts()
            self._show_starts()
            self._show_titles()
            self.call_after_refresh(self._fit_lines)

    def _show_starts(self) -> None:
        """Other texts are shown: their beginnings, unless they are still written."""
        for side in SIDES if not self._texts_grow else ():
            self._text(side).go_to_start()

    @on(RowList.Highlighted, "#steer-stack")
    def _show_texts(self) -> None:
        """Both texts, with the heat of the feature under the cursor of the stack."""
        if self._board is None:
            return
        target = target_read(self.intervention, self._board.plan.sae_id)
        for side in SIDES:
            passages = self._board.passages(side, target)
            self._text(side).show(passages, grows=self._texts_grow)

    def _show_titles(self, state: str | None = None) -> None:
        """Says over each text what wrote it; `state` None leaves what was said of the writing."""
        if state is not None:
            self._state = state
        board, state = self._board, self._state
        words: dict[str, str] = dict.fromkeys(SIDES, "")
        readings = dict.fromkeys(SIDES, state)
        if board is not None:
            words = plan_words(board.plan, self.context.sae_id)
            if state:
                page = samples_text(board.plan, board.sample)
                readings["steered"] = " · ".join(filter(None, (state, page)))
            else:
                readings = {
                    "baseline": prompt_text(board.done),
                    "steered": reading(board.plan, board.done, board.sample),
                }
        for side in SIDES:
            self.query_one(f"#title-{side}", SideTitle).say(side, words[side], readings[side])
        self.show_figures()

    def show_figures(self) -> None:
        """What was measured of the stack that wrote."""

    # What comes back at the next start.

    def writing_state(self) -> dict[str, Any]:
        """What is asked for, as JSON."""
        chosen = self._chosen_model
        return {
            "prompt": self.area.text,
            **self._settings(),
            "constraint": self._constraint.describe(),
            "model": chosen.model if chosen else "",
        }

    def use_model(self, model: str) -> None:
        """Steers this model without an SAE; an empty one: the open SAE's."""
        runs = self.context.runs()
        revision = next((r.manifest.revision for r in runs if r.manifest.model_id == model), None)
        self._chosen_model = messages.ModelAlone(model, revision) if model else None
        self.refresh_bindings()  # whether it can chat
        self._say_empty()
        self._show_titles()

    def set_stack(self, stack: Sequence[Intervention]) -> None:
        """Replaces the stack."""
        self._stack = [*stack]
        self._say_empty()
        self._show_stack()
        self._read_names()
