"""Saving what was found out about a text: what is kept, and the question under which name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.concepts.annotations_inspections import renamed_in_results
from tui.annotate import NOTHING_SAVED, may_tag
from tui.text import printable
from tui.widgets.forms.fields import FormField, Values
from tui.widgets.forms.popup import FormPopup

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations_inspections import (
        InspectionKind,
        SavedInspection,
    )
    from tui.workbench import Workbench

_WORDS = 5  # of the text, in a proposed name
# What shows it again, and then asks for its name.
_WAYS = {
    "inspect": ("inspect.save",),
    "attribute": ("inspect.attribute", "causes.save"),
    "lens": ("inspect.lens", "grid.save"),
    "layers": ("inspect.layers", "grid.save"),
    "patch": ("inspect.patch", "form.submit", "grid.save"),
    **dict.fromkeys(
        ("compare", "contrast"), ("inspect.compare", "form.submit", "differences.save")
    ),
}
_READING = ("bos", "windows")  # settings that say how the text becomes tokens


@dataclass(frozen=True)
class Found:
    """What was found out about a text, as it is saved."""

    kind: "InspectionKind"
    text: str
    results: Mapping[str, Any]
    sae_ids: tuple[str, ...] = ()
    model_id: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: "SavedInspection") -> "Found":
        """What a saved inspection says."""
        return cls(
            saved.kind, saved.text, saved.results, saved.sae_ids, saved.model_id, saved.settings
        )

    def of_renamed(self, old: str, new: str) -> "Found":
        """The same where the SAE `old` has a new id."""
        ids = tuple(new if one == old else one for one in self.sae_ids)
        return replace(self, sae_ids=ids, results=renamed_in_results(self.results, old, new))

    @property
    def reading(self) -> dict[str, Any]:
        """How the text was read, where it is not the usual way: what else is asked about it has to
        be read so too, or its tokens are others."""
        return {name: self.settings[name] for name in _READING if self.settings.get(name)}

    @property
    def proposed_name(self) -> str:
        """The first words of the text, and the kind where it is not an inspection."""
        words = " ".join(self.text.split()[:_WORDS])[:60]
        return words if self.kind == "inspect" else f"{words} ({self.kind})"


def ask_to_save(app: "Workbench", found: Found) -> None:
    """Asks for a name and saves it; what is wrong with the name is in the form."""
    if not may_tag(app, NOTHING_SAVED):
        return

    def said(name: str | None) -> None:
        if name is not None:
            app.notify(f"Saved as “{printable(name)}”")
            app.look_now()

    name = FormField("name", "name", found.proposed_name, "one that no other inspection has")
    way = ("app.inspect", *_WAYS[found.kind])
    form = FormPopup("Save", (name,), partial(_save, app, found), "Save", way=way)
    app.push_screen(form, said)


def _save(app: "Workbench", found: Found, values: Values) -> str:
    return app.context.annotations.save_inspection(
        str(values["name"]),
        found.kind,
        found.text,
        found.results,
        settings=found.settings,
        model_id=found.model_id,
        sae_ids=found.sae_ids,
    )
