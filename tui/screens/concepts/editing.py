"""What Concepts changes about the marked or selected names: a prompt each, and the change."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError
from mi_crow.visible import quoted
from tui.annotate import confidence_mistake, may_tag, naming_mistake, write
from tui.preferences.key_words import key
from tui.screens.concepts.looking import ConceptLookScreen
from tui.screens.features.reading import known_tags, known_words
from tui.widgets.frame.popup import Confirm

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, Concept

EDITING = ("tag", "tags", "rename", "note", "confidence", "remove")


class ConceptEditScreen(ConceptLookScreen):
    """Names, tags, notes and confidences, of one concept or of all that are marked."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_about: list[Concept] = []  # what the open prompt will change

    # What is asked.

    def action_tag(self) -> None:
        """The whole line of the concept under the cursor, as it was typed."""
        from mi_crow.mechanistic.concepts.naming_line import as_line

        concept = self._concept
        if concept is None or not may_tag(self.mi_crow):
            return
        line = as_line(concept.name, concept.tags, concept.confidence, concept.note)
        if line is None:
            said = f"{quoted(concept.name)} cannot be typed as a line"
            keys = f"{key('concepts.rename')} renames it, {key('concepts.tags')} tags it"
            self.tell(UserError(said, hint=keys))
            return
        self._asked_about = [concept]
        self.prompt.ask(
            "line",
            f"#{concept.feature} is",
            line,
            suggestions=known_words(self.context.features),
            placeholder="name  #tag  ~0.8  -- note",
            hint="enter saves · esc cancels",
            check=naming_mistake,
            cursor=len(concept.name),  # a long note would hide the name
        )

    def action_tags(self) -> None:
        self._ask(
            "tags",
            "tags",
            lambda _: "",
            placeholder="checked, to do; -checked removes a tag",
            suggestions=known_tags(self.context.features),
        )

    def action_rename(self) -> None:
        self._ask("rename", "new name", lambda concept: concept.name)

    def action_note(self) -> None:
        self._ask("note", "note", lambda concept: concept.note)

    def action_confidence(self) -> None:
        self._ask(
            "confidence",
            "confidence, 0 to 1",
            lambda concept: f"{concept.confidence:g}",
            check=confidence_mistake,
        )

    def _ask(
        self,
        purpose: str,
        label: str,
        value: "Callable[[Concept], str]",
        *,
        placeholder: str = "",
        suggestions: Callable[[str], Sequence[str]] | Sequence[str] = (),
        check: Callable[[str], str] | None = None,
    ) -> None:
        chosen = self._chosen
        if chosen and may_tag(self.mi_crow):
            self._asked_about = chosen
            many = f" of {len(chosen):,} concepts{self._hidden(chosen)}" if len(chosen) > 1 else ""
            self.prompt.ask(
                purpose,
                label + many,
                value(chosen[0]),
                placeholder=placeholder,
                suggestions=suggestions,
                select=True,
                check=check,
            )

    def _hidden(self, chosen: "Sequence[Concept]") -> str:
        """How many of them the filter hides: they are changed too."""
        from tui.screens.concepts.rows import key_of

        shown = set(self._shown_keys)
        hidden = sum(key_of(concept) not in shown for concept in chosen)
        return f", {hidden:,} not shown" if hidden else ""

    # What is changed.

    def answered_edit(self, purpose: str, value: str) -> None:
        """What was typed for the concepts that the prompt was about."""
        chosen = self._asked_about
        if purpose == "line" and value:
            write(self.mi_crow, partial(_set_line, chosen[0], value), typed=value, purpose=purpose)
        elif purpose == "tags" and value:
            write(self.mi_crow, partial(_tag, chosen, value), typed=value, purpose=purpose)
        elif purpose == "rename" and value:
            write(self.mi_crow, partial(_rename, chosen, value), typed=value, purpose=purpose)
        elif purpose == "note":
            write(self.mi_crow, partial(_note, chosen, value), typed=value, purpose=purpose)
        elif purpose == "confidence":
            write(self.mi_crow, partial(_confidence, chosen, float(value)))

    def action_remove(self) -> None:
        chosen = self._chosen
        if len(chosen) > 1:
            title = f"Remove {len(chosen):,} concepts{self._hidden(chosen)}?"
            popup = Confirm(title, f"{key('app.undo')} undoes it.")
            self.app.push_screen(popup, lambda sure: self._remove(chosen) if sure else None)
        else:
            self._remove(chosen)

    def _remove(self, chosen: "Sequence[Concept]") -> None:
        if chosen:
            write(self.mi_crow, partial(_remove, chosen))


def _set_line(concept: "Concept", line: str, annotations: "Annotations") -> str:
    """Makes the concept what the line says; what it leaves out goes."""
    from mi_crow.mechanistic.concepts.edits import edit_line

    name = edit_line(annotations, concept, line)
    return f"#{concept.feature} is {quoted(name)}; {key('app.undo')} undoes"


def _tag(chosen: "Sequence[Concept]", text: str, annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.edits import edit_concepts, retagged
    from mi_crow.mechanistic.concepts.marked import parse_tags

    added, removed = parse_tags(text)

    def tagged(one: "Concept") -> "Concept":
        return replace(one, tags=retagged(one.tags, added, removed))

    done = edit_concepts(annotations, chosen, tagged)
    return f"{_counted(done.found)} tagged{done.left_out()}; {key('app.undo')} undoes"


def _rename(chosen: "Sequence[Concept]", name: str, annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.edits import rename_concepts

    done, together = rename_concepts(annotations, chosen, name)
    said = f"Renamed to {quoted(name)}{done.left_out()}"
    if together:
        had = "it was there already" if together == 1 else f"{together:,} were there already"
        said += f", put together where {had}"
    return f"{said}; {key('app.undo')} undoes"


def _note(chosen: "Sequence[Concept]", note: str, annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.edits import edit_concepts

    clean = clean_text(note)
    done = edit_concepts(annotations, chosen, lambda one: replace(one, note=clean))
    return f"Saved the note{done.left_out()}"


def _confidence(chosen: "Sequence[Concept]", confidence: float, annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.edits import edit_concepts

    done = edit_concepts(annotations, chosen, lambda one: replace(one, confidence=confidence))
    return f"Set the confidence to {confidence:g}{done.left_out()}"


def _remove(chosen: "Sequence[Concept]", annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.edits import remove_concepts

    done = remove_concepts(annotations, chosen)
    what = quoted(chosen[0].name) if len(chosen) == 1 else _counted(done.found)
    return f"Removed {what}{done.left_out()}; {key('app.undo')} undoes"


def _counted(count: int) -> str:
    return "1 concept" if count == 1 else f"{count:,} concepts"
