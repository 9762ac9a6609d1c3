"""Writes to the annotations, each in a thread and as one change that one undo reverts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from tui.preferences.key_words import key
from tui.text import printable

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.naming_line import NamingLine
    from tui.workbench import Workbench

Change = Callable[["Annotations"], str]
"""Writes, and returns a sentence about what was done."""


def may_tag(app: "Workbench") -> bool:
    """Whether anything can be named; if not, says why before anybody types."""
    why = app.context.tagging_off
    if why:
        app.notify(printable(why), severity="warning")
    return not why


def write(
    app: "Workbench", change: Change, failed: Callable[[Exception], object] | None = None
) -> None:
    """Makes a change in a thread and shows its sentence, or what went wrong."""

    def work() -> tuple[str, int]:
        annotations = app.context.annotations
        return change(annotations), annotations.data_version()

    def written(done: tuple[str, int]) -> None:
        sentence, version = done
        app.notify(printable(sentence))
        app.concepts_changed(version)

    app.in_thread(work, written, failed=failed)


@dataclass(frozen=True)
class Naming:
    """The feature to be named: the answer is for it, whatever is open by then."""

    sae_id: str
    feature: int
    before: str | None  # its present name


def name_feature(
    app: "Workbench",
    naming: Naming | None,
    line: str,
    failed: Callable[[Exception], object] | None = None,
) -> str | None:
    """Replaces the name of a feature by what a line says: `name #tag ~0.8 -- note`; an empty one
    removes it, and one that begins with + adds a name beside it. Returns the name that the feature
    shall have, before it is written; None where nothing changes."""
    if naming is None or line == (naming.before or ""):
        return None
    from mi_crow.mechanistic.concepts.naming_line import parse_naming

    sae_id, feature, before = naming.sae_id, naming.feature, naming.before
    try:
        said = parse_naming(line)
    except UserError as error:
        app.tell(error)
        return None
    name = said.name or (before or "" if line.strip() else "")

    def change(annotations: "Annotations") -> str:
        with annotations.one_change():
            if name:
                rename(annotations, sae_id, feature, None if said.beside else before, name)
                _add_to(annotations, sae_id, feature, name, said)
            elif before:
                annotations.remove_concept(sae_id, feature, before)
        also = "also " if said.beside and before else ""
        return f"#{feature} is {also}“{name}”" if name else f"#{feature} has no name any more"

    write(app, change, failed)
    return before if said.beside and before else name


def _add_to(
    annotations: "Annotations", sae_id: str, feature: int, name: str, said: "NamingLine"
) -> None:
    """What the line says beside the name: tags are added, the rest replaces what was there."""
    if not said.tags and said.confidence is None and said.note is None:
        return
    old = next(one for one in annotations.concepts(sae_id, feature) if one.name == name)
    annotations.set_concept(
        sae_id,
        feature,
        name,
        old.confidence if said.confidence is None else said.confidence,
        old.note if said.note is None else said.note,
        tuple(dict.fromkeys((*old.tags, *said.tags))),
        old.source,
    )


def rename(
    annotations: "Annotations", sae_id: str, feature: int, before: str | None, name: str
) -> None:
    """Renames `before` to `name`; its note, tags and confidence stay."""
    said = {one.name: one for one in annotations.concepts(sae_id, feature)}
    old = said.get(before) if before is not None else said.get(name)
    if old is None:
        annotations.set_concept(sae_id, feature, name)
    elif old.name != name:
        annotations.set_concept(
            sae_id, feature, name, old.confidence, old.note, old.tags, old.source
        )
        annotations.remove_concept(sae_id, feature, old.name)


def undo(annotations: "Annotations") -> str:
    """Undoes the latest change of this session that is not undone yet."""
    done = annotations.undo(annotations.session)
    if done is not None:
        return str(done)
    keys = key("app.concepts", "concepts.changes")
    return f"Nothing to undo in this session; {keys} lists earlier changes"


def redo(annotations: "Annotations") -> str:
    """Redoes the change that this session undid last."""
    done = annotations.redo(annotations.session)
    return str(done) if done is not None else "Nothing to redo"


def undo_change(change: int, annotations: "Annotations") -> str:
    """Undoes one change of the history."""
    return str(annotations.undo_change(change))
