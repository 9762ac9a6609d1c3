"""The names and notes that people give to runs and SAEs, from the Runs screen."""

from functools import partial
from typing import TYPE_CHECKING

from mi_crow.store.notes import read_note, write_note

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.widgets.forms.fields import Values
else:
    _Screen = object


class NamesThings(_Screen):
    """Mixed into the Runs screen: renames the run or SAE under the cursor, writes a note on it."""

    if TYPE_CHECKING:

        def chosen(self) -> tuple[str, str] | None: ...
        def renamed(self, new: str | None) -> None: ...

    def action_rename(self) -> None:
        """Asks for another id; everything that names the run or SAE follows it."""
        from tui.widgets.forms.fields import FormField
        from tui.widgets.forms.popup import FormPopup

        chosen = self.chosen()
        if chosen is not None:
            what, name = chosen
            field = FormField("name", "new name", name, "letters, digits, . _ -", required=True)
            submit = partial(self._rename, what, name)
            form = FormPopup(
                f"Rename {what} {name}", (field,), submit, "Rename", way=("app.runs", "runs.rename")
            )
            self.app.push_screen(form, partial(self._has_name, what, name))

    def _has_name(self, what: str, name: str, new: str | None) -> None:
        if new is not None and what == "SAE" and name != new:
            self.mi_crow.sae_renamed(name, new)
        self.renamed(new)

    def _rename(self, what: str, name: str, values: "Values") -> str:
        from mi_crow.jobs.renaming import rename_run, rename_sae

        new = values["name"]
        if new != name:
            (rename_run if what == "run" else rename_sae)(self.context.workspace, name, new)
        return new

    def action_note(self) -> None:
        """Asks for the note; an empty one removes it."""
        chosen = self.chosen()
        if chosen is not None:
            folder = self.context.workspace.parent_of(chosen[0]) / chosen[1]
            self.in_thread(partial(read_note, folder), partial(self._ask_note, *chosen), opens=True)

    def _ask_note(self, what: str, name: str, note: str) -> None:
        from tui.widgets.forms.fields import FormField
        from tui.widgets.forms.popup import FormPopup

        field = FormField("note", "note", note, "an empty note removes it")
        submit = partial(self._write_note, what, name)
        form = FormPopup(
            f"Note on {what} {name}", (field,), submit, "Keep", way=("app.runs", "runs.note")
        )
        self.app.push_screen(form, self.renamed)

    def _write_note(self, what: str, name: str, values: "Values") -> str:
        write_note(self.context.workspace.folder_of(what, name), values["note"])
        return name
