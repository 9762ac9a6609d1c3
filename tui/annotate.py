"""Writes to the annotations, each in a thread and as one change that one undo reverts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.bounds import SHARE
from mi_crow.errors import NotFoundError, UserError
from mi_crow.visible import quoted
from tui.preferences.key_words import key
from tui.text import printable
from tui.threads import error_sentence

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from tui.workbench import Workbench

TAGGING_OFF, NOTHING_SAVED = "tagging is off", "nothing can be saved"

Change = Callable[["Annotations"], str]
"""Writes, and returns a sentence about what was done."""


class Unexpected(str):
    """A sentence about more than was asked for: it is seen also while the next name is typed."""

    __slots__ = ()


def may_tag(app: "Workbench", off: str = TAGGING_OFF) -> bool:
    """Whether names and what else is saved beside them can be written; if not, says before anybody
    types what is `off`, and why."""
    why = app.context.tagging_off or app.context.read_only
    if why:
        app.notify(printable(f"{off}: {why}"), severity="warning")
    return not why


def write(
    app: "Workbench",
    change: Change,
    failed: Callable[[Exception], object] | None = None,
    *,
    typed: str = "",
    purpose: str = "",
) -> None:
    """Makes a change in a thread and shows its sentence, or what went wrong. Where what was `typed`
    for it on the line of that `purpose` is refused, the line asks again; else the text is in the
    list of messages, to be copied there."""
    asked_on = app.screen

    def work() -> tuple[str, int]:
        annotations = app.context.annotations
        return change(annotations), annotations.data_version()

    def written(done: tuple[str, int]) -> None:
        sentence, version = done
        # Names that are typed one after the other are seen in their rows, which a message covers.
        line = getattr(app.screen, "prompt", None)
        typing_on = line is not None and line.is_open
        if isinstance(sentence, Unexpected):
            app.notify(printable(sentence), severity="warning")
        else:
            app.notify(printable(sentence), quiet=typing_on)
        app.concepts_changed(version)

    def asks_again(error: Exception) -> bool:
        line = getattr(asked_on, "prompt", None)
        refused = isinstance(error, UserError) and not isinstance(error, NotFoundError)
        if not (purpose and refused) or line is None or app.screen is not asked_on:
            return False
        return line.ask_again(purpose, typed, error_sentence(error))

    def not_written(error: Exception) -> None:
        if asks_again(error):
            return
        (failed or app.tell)(error)
        if typed.strip():
            keys = f"{key('app.messages')} then {key('app.copy')} copies it"
            app.notify(printable(f"Not saved: {typed.strip()}"), severity="warning", way=keys)

    app.in_thread(work, written, failed=not_written)


def naming_mistake(line: str, offered: str = "") -> str:
    """What is wrong with a line that names a feature; empty when nothing is."""
    from mi_crow.mechanistic.concepts.naming_line import parse_naming

    return _mistake(partial(parse_naming, offered=offered), line)


def name_missing(line: str) -> str:
    """What a line lacks that says something of a name, and has none; empty when nothing."""
    from mi_crow.mechanistic.concepts.naming_line import parse_naming

    if not line.strip() or parse_naming(line).name:
        return ""
    return "the line has no name; write name #tag ~0.8 -- note"


def confidence_mistake(text: str) -> str:
    """What is wrong with a confidence; empty when nothing is."""
    return _mistake(SHARE.read, text)


def _mistake(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except UserError as error:
        return f"{error}; {error.hint}" if error.hint else str(error)
    return ""


@dataclass(frozen=True)
class Naming:
    """The feature to be named: the answer is for it, whatever is open by then."""

    sae_id: str
    feature: int
    before: str | None  # its present name
    proposed: tuple[str, float] | None = None  # a name for it, and the score of that
    offered: str = ""  # what stands as ghost text in the line


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
    from mi_crow.mechanistic.concepts.edits import rename
    from mi_crow.mechanistic.concepts.naming_line import parse_naming

    sae_id, feature, before = naming.sae_id, naming.feature, naming.before
    try:
        said = parse_naming(line, naming.offered)
    except UserError as error:
        app.tell(error)
        return None
    name = said.name or (before or "" if line.strip() else "")
    if naming.proposed is not None and name == naming.proposed[0] and said.confidence is None:
        said = replace(said, confidence=round(naming.proposed[1], 2))  # as sure as it was tested

    def change(annotations: "Annotations") -> str:
        from mi_crow.mechanistic.concepts.conflicts import same_name

        both = False
        with annotations.one_change():
            known = [one.name for one in annotations.concepts(sae_id, feature)]
            if name:
                old = None if said.beside else before
                both = rename(annotations, sae_id, feature, old, name, said)
            elif before:
                annotations.remove_concept(sae_id, feature, before)
        if known and name not in known and before not in known:  # by another app
            is_now = f"is also {quoted(name)}" if name else "keeps a name"
            return Unexpected(f"#{feature} {is_now}: meanwhile it was named {quoted(known[0])}")
        if both:
            return f"#{feature} is {quoted(name)}, put together with {quoted(before or '')}"
        also = "also " if said.beside and before else ""
        if not name:
            return f"#{feature} has no name any more"
        sentence = f"#{feature} is {also}{quoted(name)}"
        folder = app.context.workspace.saes_dir / sae_id
        others = None if name in known else same_name(annotations, folder, sae_id, feature, name)
        if others is None:
            return sentence
        # What makes a conflict is seen; what is one already is in the list of messages.
        makes_one = others.far and len(others.features) == 1
        return (Unexpected if makes_one else str)(f"{sentence}; {others.words}")

    write(app, change, failed, typed=line)
    return before if said.beside and before else name


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
