"""Vectors from a screen: their list, and what is done with the one that was chosen there."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.mechanistic.vectors import stored
from tui import messages
from tui.screens.vectors.popup import VectorChoice, VectorsPopup, read_vectors
from tui.text import printable
from tui.widgets.forms.fields import filled_in
from tui.widgets.frame.popup import Confirm
from tui.widgets.prompt_line import PromptLine

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.vectors.content import Known
else:
    _Screen = object

RENAME = "vector-rename"


class HasVectors(_Screen):
    """Mixed into screens with a prompt line: `D` lists the vectors of the workspace."""

    _vector = ""  # whose new name is asked for

    def action_vectors(self, at: str = "") -> None:
        read = partial(read_vectors, self.context.workspace)
        self.in_thread(read, partial(self._list_vectors, at), group="vectors", opens=True)

    def _list_vectors(self, at: str, found: "list[Known]") -> None:
        self.app.push_screen(VectorsPopup(found, self.context, at), self._vector_chosen)

    async def _vector_chosen(self, choice: VectorChoice | None) -> None:
        if choice is None:
            return
        self._vector = choice.name
        line = self.query_one(PromptLine)
        if choice.action == "steer":
            await self.mi_crow.go("steer", messages.VectorToSteer(choice.name))
        elif choice.action == "new":
            self.make_vector()
        elif choice.action == "rename":
            line.ask(RENAME, "call the vector", choice.name, select=True)
        else:
            popup = Confirm(f"Remove the vector {choice.name}?", "Its file is deleted.")
            remove = partial(stored.remove_vector, self.context.workspace, choice.name)
            said = f"Removed the vector {choice.name}"
            self.app.push_screen(popup, lambda sure: self._do(remove, said) if sure else None)

    def make_vector(self, layer: str = "") -> None:
        """Opens the form of a new vector, at a layer where one is given."""
        from tui.screens.runs.forms.finding import Situation
        from tui.screens.runs.forms.kinds import new_form

        context = self.context
        at = Situation(
            context.workspace,
            context.runs(),
            context.saes(),
            context.jobs(),
            sae_id=context.sae_id,
            device=context.device,
        )
        form = new_form("vector", at)
        sae = context.sae()
        layer = layer or (sae.layer if sae is not None else "")
        form.fields = filled_in(form.fields, {"layers": layer})
        self.app.push_screen(form.popup(), self._vector_started)

    def _vector_started(self, job_id: str | None) -> None:
        if job_id is not None:
            self.notify(printable(f"Making the vector: the job {job_id} on Runs"))
            self.mi_crow.look_now()

    def vector_answered(self, purpose: str, text: str) -> bool:
        """Does what was asked on the prompt line; False where it was about something else."""
        if purpose != RENAME:
            return False
        name, workspace = self._vector, self.context.workspace
        if not text:
            return True
        rename = partial(stored.rename_vector, workspace, name, text)
        self._do(rename, f"The vector {name} is called {text} now", text)
        return True

    def _do(self, work: Callable[[], object], said: str, name: str = "") -> None:
        """Does it in a thread, says so and shows the list again."""

        def done(_: object) -> None:
            self.notify(printable(said))
            self.action_vectors(name)

        self.in_thread(work, done)
