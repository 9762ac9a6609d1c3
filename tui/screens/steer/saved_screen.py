"""Saved generations on the Steer screen: the list, opening one, writing it again, comparing two,
writing them to a file."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import MiCrowError, UserError
from tui import messages
from tui.annotate import write
from tui.screens.concepts.typed_path import typed_path, wrong_target
from tui.screens.steer.board import Board
from tui.screens.steer.chat_screen import Chats
from tui.screens.steer.generations import (
    ComparePopup,
    GenerationsPopup,
    KeptChoice,
    plan_of,
    same_request,
    sample_number,
    saved_words,
)
from tui.screens.steer.keeping import sample_of
from tui.screens.steer.kept_reading import sample_of_saved
from tui.screens.steer.writing import PassageDone, Plan
from tui.widgets.frame.popup import Confirm
from tui.widgets.prompt_line import PromptLine

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, SavedGeneration


class SavedTexts(Chats):
    """The part of Steer that shows what was saved."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: tuple[Plan, SavedGeneration] | None = None  # the last saved one shown
        self._exported: Sequence[SavedGeneration] = ()

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        if self._opened is not None:
            plan, saved = self._opened
            self._opened = plan.of_renamed(message.old, message.new), saved

    def action_kept(self) -> None:
        """Lists the saved generations, newest first."""
        read = partial(self.context.annotations.generations, 1000, readings=False)
        self.in_thread(read, self._list, group="kept", opens=True)

    def _list(self, found: "Sequence[SavedGeneration]") -> None:
        self.app.push_screen(GenerationsPopup(found), self._chosen)

    def _chosen(self, choice: KeptChoice | None) -> None:
        if choice is None:
            return
        if choice.action == "remove":
            self._remove(choice.generations)
        elif choice.action == "compare":
            self.app.push_screen(ComparePopup(choice.generations))
        elif choice.action == "export":
            self._exported = choice.generations
            self.query_one(PromptLine).ask(
                "export",
                f"write {len(self._exported)} to",
                "generations.md",
                hint=".json or .md · enter writes",
                refuse=partial(wrong_target, (".md", ".json", ".markdown")),
                select=True,
            )
        else:
            whole = partial(self.context.annotations.generation, choice.generations[0].id)
            opened = partial(self._open, run=choice.action == "again")
            self.in_thread(whole, opened, group="kept")

    def _open(self, saved: "SavedGeneration", *, run: bool) -> None:
        """Shows a saved text with all that made it, or writes it again."""
        try:
            plan = plan_of(saved)
        except MiCrowError as error:
            self.tell(error)
            return
        if self._is_writing:
            self.stop_running()
        if plan.sae_id is not None and plan.sae_id != self.context.sae_id:
            if self.context.find_sae(plan.sae_id) is None:
                self.tell(UserError(f"SAE {plan.sae_id!r} is not in this workspace"))
            else:
                self.mi_crow.open_sae(plan.sae_id)
        self._take_up(plan)
        self.take_up_chat(plan, saved.baseline, saved.steered)
        self._runs += 1
        shown = sample_of_saved(saved)
        done = PassageDone(
            0, saved.baseline, saved.steered, dict(saved.metrics), samples=(shown,), run=self._runs
        )
        self._board = Board(replace(plan, run=self._runs), [done], started=1, saved=True)
        self._opened, self._stopped = (plan, saved), False
        self._share_lines()
        self._show_texts()
        self._show_starts()
        self._show_titles(saved_words(saved))
        self.refresh_bindings()
        self.call_after_refresh(self._fit_lines)
        if run:
            self.action_run()
            if self._board is not None:
                self._board.sample = sample_number(saved)

    def _take_up(self, plan: Plan) -> None:
        """Asks for what a plan asked for."""
        self.area.text, self._constraint = plan.prompt, plan.settings.constraint
        self._chosen_model = plan.alone
        values = {
            "tokens": plan.settings.max_new_tokens,
            "temperature": plan.settings.temperature,
            "seed": plan.settings.seed,
            "samples": plan.settings.samples,
        }
        for name, field in self._setting_fields().items():
            field.value = f"{values[name]:.12g}"  # seeds are long
        self.set_stack(plan.stacks[0])

    def _written(self, _: object = None) -> None:
        super()._written()
        board = self._board
        if self._opened is None or board is None or self._stopped or not board.done:
            return
        plan, saved = self._opened
        if same_request(board.plan, plan):
            found = sample_of(board.done[0], sample_number(saved))
            texts = found.baseline.text, found.steered.text
            same = texts == (saved.baseline, saved.steered)
            self.notify(
                "The same texts as were saved"
                if same
                else "Other texts than were saved: the machine, the model or the versions changed",
                severity="information" if same else "warning",
            )

    def _remove(self, gone: "Sequence[SavedGeneration]") -> None:
        what = f"{len(gone)} saved generation{'' if len(gone) == 1 else 's'}"

        def change(annotations: "Annotations") -> str:
            for one in gone:
                annotations.delete_generation(one.id)
            return f"Removed {what}"

        popup = Confirm(f"Remove {what}?", "The texts are gone then.")
        self.app.push_screen(popup, lambda sure: write(self.mi_crow, change) if sure else None)

    def export_to(self, text: str, *, force: bool = False) -> None:
        """Writes the chosen generations to the file called `text`."""
        from mi_crow.mechanistic.concepts.generation_files import write_generations

        if not text:
            return
        try:
            path = typed_path(text)
        except UserError as error:
            self.tell(error)
            return
        if path.exists() and not force:
            popup = Confirm(f"{path} exists.", "Replace it?")
            again = partial(self.export_to, text, force=True)
            self.app.push_screen(popup, lambda yes: again() if yes else None)
            return
        found = tuple(self._exported)

        def done(where: Path) -> None:
            self.notify(f"Wrote {len(found)} to {where}")

        def written() -> Path:
            whole = (self.context.annotations.generation(one.id) for one in found)
            return write_generations(path, tuple(whole))

        self.in_thread(written, done)
