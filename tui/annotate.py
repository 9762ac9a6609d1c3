"""Writes to the annotations, each in a thread and as one change that one undo takes back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui.text import printable

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from tui.workbench import Workbench

Change = Callable[["Annotations"], str]
"""Does the writing and says what was done, in words for the person who asked."""


def may_tag(app: "Workbench") -> bool:
    """Whether anything can be named; says why when not, before anybody types."""
    why = app.context.tagging_off
    if why:
        app.notify(printable(why), severity="warning")
    return not why


def write(app: "Workbench", change: Change) -> None:
    """Does `change` in a thread; tells what it says, or what went wrong."""

    def work() -> tuple[str, int]:
        annotations = app.context.annotations
        return change(annotations), annotations.data_version()

    def written(done: tuple[str, int]) -> None:
        sentence, version = done
        app.notify(printable(sentence))
        app.concepts_changed(version)

    app.in_thread(work, written)


@dataclass(frozen=True)
class Naming:
    """The feature that a name is asked for: the answer is for it, whatever is open by then."""

    sae_id: str
    feature: int
    before: str | None  # the name that it has


def name_feature(app: "Workbench", naming: Naming | None, name: str) -> None:
    """Gives a feature a name in place of the one before; an empty one takes it away."""
    if naming is None or name == (naming.before or ""):
        return
    sae_id, feature, before = naming.sae_id, naming.feature, naming.before

    def change(annotations: "Annotations") -> str:
        with annotations.one_change():
            if name:
                rename(annotations, sae_id, feature, before, name)
            elif before:
                annotations.remove_concept(sae_id, feature, before)
        return f"#{feature} is “{name}”" if name else f"#{feature} has no name now"

    write(app, change)


def rename(
    annotations: "Annotations", sae_id: str, feature: int, before: str | None, name: str
) -> None:
    """Puts `name` in the place of `before`, which keeps its note, tags and confidence."""
    old = next(
        (
            concept
            for concept in annotations.concepts(sae_id)
            if concept.feature == feature and concept.name == before
        ),
        None,
    )
    if old is None:
        annotations.set_concept(sae_id, feature, name)
    elif old.name != name:
        annotations.set_concept(
            sae_id, feature, name, old.confidence, old.note, old.tags, old.source
        )
        annotations.remove_concept(sae_id, feature, old.name)


def undo(annotations: "Annotations") -> str:
    """Takes back this session's latest change that stands."""
    done = annotations.undo(annotations.session)
    return str(done) if done is not None else "Nothing of this session to undo; 5 h lists the rest"


def redo(annotations: "Annotations") -> str:
    """Takes back this session's latest undo."""
    done = annotations.redo(annotations.session)
    return str(done) if done is not None else "Nothing to redo"


def undo_change(change: int, annotations: "Annotations") -> str:
    """Takes back one change of the history."""
    return str(annotations.undo_change(change))
