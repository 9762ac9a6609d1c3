"""Marked features on the Features screen, and what is done with all of them at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.catalogue import DEFAULT, column_named
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.annotate import may_tag, name_missing, naming_mistake, write
from tui.screens.features.listing import FeatureListScreen
from tui.screens.features.reading import known_tags, known_words, proposed_by
from tui.screens.writing_files import WritesFiles
from tui.text import printable
from tui.watch import check_there
from tui.widgets.lists.feature_marks import FeatureMarks

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import Concept

BULK = ("mark", "mark_range", "mark_all", "tag", "tags", "note", "remove", "export", "compare")
MARKED_PURPOSES = ("names", "tags", "note", "export")
MOST_STEERED = 64  # interventions in one stack
MOST_INSPECTED = 8  # whose strongest texts are put together


class FeatureMarkScreen(WritesFiles, FeatureListScreen):
    """Marks features, and acts on the marked ones or, without marks, on the open one."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_for: tuple[int, ...] = ()  # the features that the open prompt is about

    def _chosen(self) -> tuple[int, ...]:
        marked = tuple(self.table.marks)
        return marked or (() if self._feature is None else (self._feature,))

    # Marking.

    def action_mark(self) -> None:
        if self.table.feature is not None:
            self.table.marks.toggle(self.table.feature)
            self.table.cursor += 1
            self._marks_changed()

    def action_mark_range(self) -> None:
        if self.table.feature is not None:
            self.table.marks.mark_range(self.table.shown_ids, self.table.cursor)
            self._marks_changed()

    def action_mark_all(self) -> None:
        self.table.marks.toggle_all(self.table.shown_ids)
        self._marks_changed()

    def action_unmark(self) -> None:
        self.table.marks.clear()
        self._marks_changed()

    def _marks_changed(self) -> None:
        self.table.marks_changed()
        self.refresh_bindings()

    # Names, tags and notes.

    def action_explain(self) -> None:
        """Starts the job that proposes a name for every feature."""
        sae_id, workspace = self._sae_id, self.context.workspace
        if sae_id is None:
            return

        def start() -> str:
            from mi_crow.jobs import submit

            check_there(workspace)
            return submit(workspace, "explain", {"sae_id": sae_id})

        def started(_: str) -> None:
            self.mi_crow.notify(f"Naming the features of {printable(sae_id)}")
            self.mi_crow.look_now()

        self.mi_crow.in_thread(start, started, failed=self.tell)

    def name_marked(self) -> None:
        self._ask_for_chosen("names", "", "a name for all  #tag  ~0.8  -- note")

    def action_tags(self) -> None:
        self._ask_for_chosen("tags", " tags", "checked, to do; -checked untags")
        store, features = self.context.features, self._asked_for
        if store is not None and self.prompt.is_open:
            self.in_thread(
                partial(proposed_by, store, features), self._say_proposed, group="proposed"
            )

    def _say_proposed(self, found: "Mapping[int, tuple[str, float]]") -> None:
        """Says before the tags are given that features without a name get one with them."""
        if found and self.prompt.is_open and self.prompt.purpose == "tags":
            get = "gets its proposed name" if len(found) == 1 else "get their proposed names"
            self.prompt.hint(f"{len(found):,} {get}")

    def action_note(self) -> None:
        store, chosen = self.context.features, self._chosen()
        note = _note_of_all(store.concepts(), chosen) if store is not None else ""
        many = "a note for all; empty removes the notes"
        said = many if len(chosen) > 1 else "a note; empty removes it"
        self._ask_for_chosen("note", " note", said, note)

    def _ask_for_chosen(self, purpose: str, what: str, placeholder: str, value: str = "") -> None:
        self._asked_for = self._chosen()
        if self._asked_for and may_tag(self.mi_crow):
            names = purpose == "names"
            store = self.context.features
            completions = {"names": known_words(store), "tags": known_tags(store)}
            self.prompt.ask(
                purpose,
                f"{self._whose()}{what}",
                value,
                suggestions=completions.get(purpose, ()),
                placeholder=placeholder,
                hint=f"enter {'adds it' if names else 'saves'} · esc cancels",
                check=naming_mistake if names else None,
                refuse=name_missing if names else None,
                select=bool(value),
            )

    def _whose(self) -> str:
        """Which features the prompt is about: the marked ones, also those that are not shown."""
        if not self.table.marks:
            return _counted(self._asked_for)
        hidden = len(self._asked_for) - sum(one in self.table.marks for one in self.table.shown_ids)
        return f"{len(self._asked_for):,} marked" + (f", {hidden:,} not shown" if hidden else "")

    def action_remove(self) -> None:
        sae_id, features = self._sae_id, self._chosen()
        if sae_id is not None and features and may_tag(self.mi_crow):
            from mi_crow.mechanistic.concepts.marked import remove_names

            self._change(partial(remove_names, sae_id=sae_id, features=features))

    def answered_for_marked(self, purpose: str, value: str) -> None:
        """What was typed for the features that the prompt was about."""
        from mi_crow.mechanistic.concepts.marked import name_all, note_all, parse_tags, tag_all

        sae_id, features = self._sae_id, self._asked_for
        if sae_id is None or not features:
            return
        if purpose == "export":
            self._export_to(value, features)
        elif purpose == "note":
            change = partial(note_all, sae_id=sae_id, features=features, note=value)
            self._change(change, value, purpose)
        elif purpose == "names" and value:
            change = partial(name_all, sae_id=sae_id, features=features, line=value)
            self._change(change, value, purpose)
        elif purpose == "tags" and value:
            store, tags = self.context.features, parse_tags(value)

            def tag(annotations: "Annotations") -> str:
                proposed = proposed_by(store, features) if store is not None else {}
                return tag_all(annotations, sae_id, features, *tags, proposed)

            self._change(tag, value, purpose)

    def _change(
        self, change: "Callable[[Annotations], str]", typed: str = "", purpose: str = ""
    ) -> None:
        write(self.mi_crow, change, typed=typed, purpose=purpose)

    # Steer and Inspect.

    async def action_steer(self) -> None:
        features = self._chosen()
        if len(features) > MOST_STEERED:
            self.tell(
                UserError(
                    f"{len(features):,} features are too many for one stack",
                    hint=f"mark at most {MOST_STEERED}",
                )
            )
        elif features:
            first, *more = features
            await self.mi_crow.go("steer", messages.SendToSteer(first, self._sae_id, tuple(more)))

    async def action_inspect(self) -> None:
        store, features = self.context.features, tuple(self.table.marks)
        if not features or store is None:
            await super().action_inspect()
            return

        async def to_inspect(text: str) -> None:
            await self.mi_crow.go("inspect", messages.SendToInspect(features[0], text or None))

        self.in_thread(
            partial(_strongest_texts, store, features[:MOST_INSPECTED]),
            to_inspect,
            group="strongest",
        )

    # Export.

    def action_export(self) -> None:
        self._asked_for = self._chosen()
        if self._asked_for:
            label, proposed = f"{_counted(self._asked_for)} to", f"{self._sae_id}-features.html"
            self.ask_where(label, proposed, ".html", ".htm", ".json")

    def _export_to(self, value: str, features: Sequence[int]) -> None:
        store = self.context.features
        if store is not None:
            self.write_file(value, partial(_export, store, features))


def _counted(features: Sequence[int]) -> str:
    return f"#{features[0]}" if len(features) == 1 else f"{len(features):,} features"


def _strongest_texts(store: "FeatureStore", features: Sequence[int]) -> str:
    """The window around the strongest token of each, one a line."""
    found = [store.examples(feature, limit=1) for feature in features]
    texts = ("".join(some[0].tokens).strip() for some in found if some)
    return "\n".join(dict.fromkeys(texts))


def _export(store: "FeatureStore", features: Sequence[int], path: Path) -> str:
    from mi_crow.mechanistic.features.report.write import write_features

    count = write_features(store, features, path, overwrite=True)
    return f"Wrote {count:,} {'feature' if count == 1 else 'features'} to {path}"


def saved_columns(saved: JsonObject) -> tuple[str, ...]:
    """The columns of a saved state. Raises CorruptDataError for what are none."""
    names = saved.array("columns", list(DEFAULT)) or list(DEFAULT)
    try:
        found = tuple(dict.fromkeys(column_named(str(name)).name for name in names))
    except UserError as error:
        raise saved.wrong("columns", "a list of columns") from error
    return found if "feature" in found else ("feature", *found)


def saved_marks(saved: JsonObject) -> FeatureMarks:
    """The marks of a saved state. Raises CorruptDataError for what are none."""
    try:
        return FeatureMarks.from_json(saved.array("marks", []) or [])
    except ValueError as error:
        raise saved.wrong("marks", "runs of features") from error


def _note_of_all(concepts: "Mapping[int, Sequence[Concept]]", features: "Sequence[int]") -> str:
    """The note that is on every name of the features; empty where they differ."""
    notes = {one.note for feature in features for one in concepts.get(feature, ())}
    return notes.pop() if len(notes) == 1 else ""
