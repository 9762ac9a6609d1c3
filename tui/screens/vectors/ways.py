"""Vectors from a screen: their list, and what is done with the one that was chosen there."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors import stored
from mi_crow.mechanistic.vectors.noting import note_vector
from tui import messages
from tui.screens.concepts.typed_path import typed_path, wrong_target
from tui.screens.vectors.popup import VectorChoice, VectorsPopup, read_vectors
from tui.text import printable
from tui.threads import error_sentence
from tui.widgets.forms.fields import filled_in
from tui.widgets.frame.popup import Confirm
from tui.widgets.prompt_line import PromptLine

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.vectors.content import Known
    from tui.widgets.forms.popup import FormPopup
else:
    _Screen = object

RENAME, NOTE, EXPORT = "vector-rename", "vector-note", "vector-export"


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
        from tui.screens.vectors.exchanging import import_form, refine_form, users_of

        self._vector = choice.name
        line = self.query_one(PromptLine)
        if choice.action == "steer":
            await self.mi_crow.go("steer", messages.VectorToSteer(choice.name))
        elif choice.action == "inspect":
            await self.mi_crow.go("inspect", messages.VectorToInspect(choice.name))
        elif choice.action == "feature":
            await self._open_feature_of(choice)
        elif choice.action == "new":
            self.make_vector(*self.vector_place())
        elif choice.action == "rename":
            line.ask(RENAME, "call the vector", choice.name, select=True)
        elif choice.action == "note":
            line.ask(NOTE, f"note on {choice.name}", choice.words, select=True)
        elif choice.action == "export":
            name = f"{choice.name}.safetensors"
            hint = ".safetensors or .gguf · enter writes"
            label, refuse = (
                f"write {choice.name} to",
                partial(wrong_target, (".safetensors", ".gguf")),
            )
            line.ask(EXPORT, label, name, hint=hint, refuse=refuse, select=True)
        elif choice.action == "import":
            form = import_form(self.context, self._way_to("import"))
            self._ask_for(form, "Imported the vector")
        elif choice.action == "refine":
            form = refine_form(self.context, choice.name, self._way_to("refine"))
            self._ask_for(form, "Made the vector")
        else:
            asked = partial(self._ask_to_remove, choice.name)
            self.in_thread(partial(users_of, self.context, choice.name), asked, opens=True)

    def _way_to(self, name: str) -> tuple[str, ...]:
        return f"app.{self.NAME}", f"{self.NAME}.vectors", f"vectors.{name}"

    def vector_place(self) -> tuple[str, str]:
        """The layer and the model of a new vector; empty: those of the open SAE."""
        return "", ""

    async def _open_feature_of(self, choice: VectorChoice) -> None:
        if choice.sae_id and choice.sae_id != self.context.sae_id:
            self.mi_crow.open_sae(choice.sae_id)
        await self.mi_crow.go("features", messages.OpenFeature(choice.feature))

    def _ask_for(self, form: "FormPopup[str]", said: str) -> None:
        def done(name: str | None) -> None:
            if name is not None:
                self.notify(printable(f"{said} {name}"))
                self.action_vectors(name)

        self.app.push_screen(form, done)

    def _ask_to_remove(self, name: str, users: str) -> None:
        popup = Confirm(f"Remove the vector {name}?", f"Its file is deleted.{users}")
        remove = partial(stored.remove_vector, self.context.workspace, name)
        said = f"Removed the vector {name}"
        self.app.push_screen(popup, lambda sure: self._do(remove, said) if sure else None)

    def make_vector(self, layer: str = "", model: str = "") -> None:
        """Opens the form of a new vector, at a layer and of a model where they are given."""
        from tui.screens.runs.forms.finding import Situation
        from tui.screens.runs.forms.kinds import new_form

        context = self.context
        runs = [one for one in context.runs() if model in ("", one.manifest.model_id)]
        at = Situation(
            context.workspace,
            context.runs(),
            context.saes(),
            context.jobs(),
            runs[-1].run_id if model and runs else None,
            context.sae_id,
            context.device,
        )
        form = new_form("vector", at)
        sae = context.sae()
        layer = layer or (sae.layer if sae is not None else "")
        texts = {"layers": layer} | ({} if runs else {"model": model})
        form.fields = filled_in(form.fields, texts)
        form.way = self._way_to("new")
        self.app.push_screen(form.popup(), self._vector_started)

    def _vector_started(self, job_id: str | None) -> None:
        if job_id is not None:
            self.notify(printable(f"Making the vector: the job {job_id} on Runs"))
            self.mi_crow.look_now()

    def vector_answered(self, purpose: str, text: str) -> bool:
        """Does what was asked on the prompt line; False where it was about something else."""
        if purpose not in (RENAME, NOTE, EXPORT):
            return False
        name, workspace = self._vector, self.context.workspace
        if purpose == NOTE:
            said = f"The note on {name} is saved" if text else f"The note on {name} is gone"
            self._do(partial(note_vector, workspace, name, text), said, name, (NOTE, text))
        elif not text:
            return True
        elif purpose == RENAME:
            rename = partial(stored.rename_vector, workspace, name, text)
            said = f"The vector {name} is called {text} now"
            self._do(rename, said, text, (RENAME, text))
        else:
            self._export(name, text)
        return True

    def _export(self, name: str, text: str, *, force: bool = False) -> None:
        try:
            path = typed_path(text)
        except UserError as error:
            self.tell(error)
            return
        if path.exists() and not force:
            popup = Confirm(f"{path} exists.", "Replace it?")
            again = partial(self._export, name, text, force=True)
            self.app.push_screen(popup, lambda yes: again() if yes else None)
            return
        call = partial(
            self.context.session.call, "export_vector", name=name, path=str(path.absolute())
        )
        self._do(call, f"Wrote the vector {name} to {path}", name)

    def _do(
        self,
        work: Callable[[], object],
        said: str,
        name: str = "",
        typed: tuple[str, str] | None = None,
    ) -> None:
        """Does it in a thread, says so and shows the list again. Where it is refused, the line of
        the purpose and the text that were `typed` asks again."""

        def done(_: object) -> None:
            self.notify(printable(said))
            self.action_vectors(name)

        def refused(error: Exception) -> None:
            line, asked = self.query_one(PromptLine), False
            if typed is not None and isinstance(error, UserError):
                asked = line.ask_again(*typed, error_sentence(error))
            if not asked:
                self.tell(error)

        self.in_thread(work, done, failed=refused)
