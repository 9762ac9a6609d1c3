"""Saved inspections in the app: their list, opening, renaming, removing and exporting them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import CorruptDataError, UserError
from tui.actions import bindings
from tui.annotate import may_tag, write
from tui.preferences.key_words import key
from tui.screens.inspect.comparing import Compares
from tui.screens.inspect.keeping import Found, ask_to_save
from tui.screens.writing_files import WritesFiles
from tui.text import moment, printable
from tui.widgets.forms.fields import FormField
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.list_popup import Chosen, SavedPopup
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_inspections import (
        InspectionLine,
        SavedInspection,
    )


class InspectionsPopup(SavedPopup):
    """Lists saved inspections: open, rename, export, remove."""

    HEADING = "Saved inspections"
    BINDINGS = [*bindings("popup", "close"), *bindings("inspections")]
    SEVERAL = ("export", "remove")
    COLUMNS = (
        Column("name"),
        Column("kind", 9),
        Column("saved", 16, from_width=60),
        Column("SAE", 20, from_width=84),
        Column("text", 0, "left", 110),
    )

    def __init__(self, found: "Sequence[InspectionLine]") -> None:
        super().__init__()
        self._found = found

    def empty_words(self) -> str:
        return f"none yet: {key('inspect.save')} saves what was found"

    def list_rows(self) -> list[Row]:
        return [self._row(one) for one in self._found]

    def _row(self, one: "InspectionLine") -> Row:
        mark = "● " if one.name in self._marked else "  "
        return Row(
            one.name,
            (
                Cell(mark, "$accent", ((printable(one.name), ""),)),
                Cell(one.kind, "$muted"),
                Cell(moment(one.created), "$muted"),
                Cell(printable(", ".join(one.sae_ids)), "$muted"),
                Cell(printable(one.text), "$faint"),
            ),
        )


class SavedInspectionsScreen(WritesFiles, Compares):
    """The part of Inspect that saves what was found and shows it again."""

    def __init__(self) -> None:
        super().__init__()
        self._exported: tuple[str, ...] = ()
        self._to_open: SavedInspection | None = None  # once its SAE is open

    @property
    def found(self) -> Found | None:
        """The inspection that is shown."""
        raise NotImplementedError

    def show_saved(self, saved: "SavedInspection") -> None:
        """Shows a saved inspection of the open SAE, with its text in the field."""
        raise NotImplementedError

    def action_save(self) -> None:
        if not self._nothing_read() and (found := self.found) is not None:
            ask_to_save(self.mi_crow, found)

    def action_kept(self) -> None:
        """Lists the saved inspections, newest first."""
        self.in_thread(
            lambda: self.context.annotations.inspections(), self._list, group="kept", opens=True
        )

    def _list(self, found: "Sequence[InspectionLine]") -> None:
        self.app.push_screen(InspectionsPopup(found), self._chosen)

    def _chosen(self, choice: Chosen | None) -> None:
        if choice is None:
            return
        name = choice.key
        if choice.action == "open":
            read = partial(self.context.annotations.inspection, name)
            self.in_thread(read, self._open_saved, group="kept", opens=True)
        elif choice.action == "export":
            self._exported = choice.keys
            self.ask_where(f"write {len(choice.keys)} to", "inspections.md", ".md", ".json")
        elif not may_tag(self.mi_crow, "what is saved cannot be changed"):
            return
        elif choice.action == "rename":
            self._rename(name)
        else:
            write(self.mi_crow, partial(_remove, choice.keys))

    def _rename(self, name: str) -> None:
        def said(new: str | None) -> None:
            if new is not None:
                self.notify(f"“{printable(name)}” is called “{printable(new)}” now")

        field = FormField("name", "name", name, "one that no other inspection has")
        popup = FormPopup(
            "Rename",
            (field,),
            lambda values: self.context.annotations.rename_inspection(name, str(values["name"])),
            "Rename",
            way=("app.inspect", "inspect.kept", "inspections.rename"),
        )
        self.app.push_screen(popup, said)

    # Opening one.

    def _open_saved(self, saved: "SavedInspection") -> None:
        own = next(iter(saved.sae_ids), None)
        if self._sae_id in saved.sae_ids or own is None:
            self.open_found(saved)
        elif self.context.find_sae(own) is not None:
            self._to_open = saved
            self.mi_crow.open_sae(own)
        else:
            self.tell(UserError(f"SAE {own!r} is not in this workspace", hint="export it instead"))

    def open_found(self, saved: "SavedInspection") -> None:
        """Shows a saved inspection as it was shown when it was found. What opens over the screen
        leaves the text below it alone."""
        kept = Found.of(saved)
        openers = {
            "compare": self.open_differences,
            "contrast": self.open_differences,
            "attribute": self.open_causes,
            "lens": self.open_lens,
            "layers": self.open_layers,
            "patch": self.open_patching,
        }
        try:
            if saved.kind == "inspect":
                self.show_saved(saved)
            else:
                openers[saved.kind](saved.results, kept)
        except (KeyError, TypeError, ValueError, CorruptDataError) as error:
            self.tell(CorruptDataError(f"inspection {saved.name!r} cannot be shown ({error!r})"))
            return
        self.notify(f"“{printable(saved.name)}”, saved {moment(saved.created)}")

    # Writing them to a file.

    def export_to(self, text: str) -> None:
        """Writes the chosen inspections to the file called `text`."""
        self.write_file(text, partial(_export, self.context.annotations, self._exported))


def _remove(names: Sequence[str], annotations: "Annotations") -> str:
    for name in names:
        annotations.delete_inspection(name)
    return f"Removed {len(names)} saved inspection{'' if len(names) == 1 else 's'}"


def _export(annotations: "Annotations", names: Sequence[str], path: Path) -> str:
    from mi_crow.mechanistic.concepts.inspection_files import write_inspections

    where = write_inspections(path, [annotations.inspection(name) for name in names])
    return f"Wrote {len(names)} to {where}"
