"""Screen 5, Concepts: what has been named, and how much of the SAE that is."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from mi_crow.errors import UserError
from mi_crow.store.json_object import JsonObject
from mi_crow.visible import visible
from tui import messages
from tui.actions import bindings
from tui.annotate import may_tag, write
from tui.clipboard import copy
from tui.preferences.key_words import key
from tui.preferences.list_columns import CONCEPT_COLUMNS
from tui.screens.concepts.editing import EDITING, ConceptEditScreen
from tui.screens.concepts.importing import ImportsNames
from tui.screens.concepts.looking import LOOKING
from tui.screens.concepts.marking import MARKING, saved_marks
from tui.screens.concepts.rows import (
    ConceptsRead,
    concept_rows,
    coverage,
    key_of,
    matching,
)
from tui.screens.concepts.typed_path import wrong_source
from tui.screens.feature_card import FeatureCard
from tui.screens.no_sae import no_sae
from tui.screens.writing_files import WritesFiles
from tui.text import printable
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.trouble import Trouble
from tui.widgets.words import Words

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, Concept


class ConceptsScreen(WritesFiles, ImportsNames, ConceptEditScreen):
    """The concepts of the open SAE: bulk edit, undo, import and export."""

    NAME = "concepts"
    HOME = "#concepts-list"
    CSS_PATH = ["../../widgets/widgets.tcss", "concepts.tcss"]
    BINDINGS = bindings("concepts")

    def __init__(self) -> None:
        super().__init__()
        self._read: ConceptsRead | None = None
        self._search = ""
        self._checked: Concept | None = None  # what the open prompt will check
        self._outdated = False  # something was changed while another screen was shown
        self._exported: frozenset[str] = frozenset()  # what the open prompt will write

    def compose_body(self) -> ComposeResult:
        with Vertical(id="concepts-body"):
            yield Words(id="concepts-coverage", markup=False)
            row_list = SortedList(
                CONCEPT_COLUMNS, empty="reading…", id="concepts-list", listed="concepts"
            )
            yield ListHeading("Name", row_list, id="concepts-titles")
            yield Trouble(id="concepts-trouble")
            yield row_list
            yield FeatureCard(self.context)
        yield Words(id="concepts-note", markup=False)
        yield PromptLine()

    def on_mount(self) -> None:
        self._read_again()

    @property
    def _concepts(self) -> "Sequence[Concept]":
        return self._read.concepts if self._read is not None else ()

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        return {"sae": self.context.sae_id, "search": self._search, "marks": list(self._marked)}

    def restore(self, saved: JsonObject) -> None:
        self._search = saved.text("search", "")
        if saved.text("sae", None) == self.context.sae_id:
            self._marked = saved_marks(saved)

    # Reading.

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._read_again()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        if self.is_current:
            self._read_again()
        else:  # twenty thousand names are not read for nobody
            self._outdated = True

    def on_screen_resume(self) -> None:
        if self._outdated:
            self._read_again()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        if self._read is not None:
            self._say_empty()

    def on_workspace_back(self, _: messages.WorkspaceBack) -> None:
        if self.query_one("#concepts-trouble", Trouble).display:
            self._read_again()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._say_empty()
        self._show_note()

    def _say_empty(self) -> None:
        if not self.query_one("#concepts-trouble", Trouble).display:  # else there may be some
            self.query_one(SortedList).say_empty(self._empty_words())

    def _empty_words(self) -> str:
        if self._concepts:
            return f"None of {len(self._concepts):,} concepts matches; {key('app.escape')} clears."
        return no_sae(self.context) or no_concepts()

    def _read_again(self) -> None:
        sae_id, self._outdated = self.context.sae_id, False
        self.in_thread(
            partial(self._work, sae_id),
            self._show_read,
            group="concepts",
            failed=self._not_read,
            trouble=self.query_one("#concepts-trouble", Trouble),
        )

    def _not_read(self, error: Exception) -> None:
        self.query_one(SortedList).say_empty("")
        self.tell(error)

    def _work(self, sae_id: str | None) -> ConceptsRead:
        context = self.context
        store = context.features
        if store is None or store.meta().sae_id != sae_id:
            concepts = context.annotations.concepts(sae_id) if sae_id else ()
            return ConceptsRead(sae_id, tuple(concepts))
        from mi_crow.mechanistic.concepts.coverage import FactsOf, coverage_of
        from mi_crow.mechanistic.features.records import FeatureFilter, is_telling

        store.refresh_concepts()
        concepts = store.named().all()  # those that Features holds: twice, they would take 9 MB
        alive = len(store.ids(flt=FeatureFilter(alive=True)))
        total = store.meta().n_features
        named = {concept.feature for concept in concepts if concept.feature < total}
        held_out = {
            feature: (score.label, score.auroc)
            for feature, score in store.best_labels(sorted(named)).items()
            if is_telling(score.auroc)
        }
        facts = FactsOf(store, named)
        several = store.connection.layers.several
        return ConceptsRead(
            sae_id, tuple(concepts), held_out, alive, facts, coverage_of(store), several
        )

    def _show_read(self, read: ConceptsRead) -> None:
        if read.sae_id != self.context.sae_id:
            return  # another SAE was opened meanwhile; its concepts are on their way
        self._read = read
        self._say_empty()
        self._marked.keep_only(key_of(concept) for concept in read.concepts)
        self._show()

    # What is shown.

    def _show(self) -> None:
        read = self._read
        concepts = self._concepts
        shown = matching(concepts, self._search)
        self.row_list.bring(*(["layer"] if read is not None and read.several else []))
        self.row_list.set_rows(concept_rows(shown, read, self._marked))
        if not shown:
            self._say_empty()
        named = len({concept.feature for concept in concepts})
        alive = read.alive if read is not None else None
        found = read.coverage if read is not None else None
        line = coverage(named, alive, len(self._marked), self._search, found, self.size.width)
        self.query_one("#concepts-coverage", Words).update(line)
        self._show_note()
        self.call_after_refresh(self._show_titles)
        self.refresh_bindings()

    def _show_titles(self) -> None:
        self.query_one(ListHeading).refresh()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_titles)

    @on(RowList.Highlighted)
    def _show_note(self) -> None:
        concept = self._concept
        text = Content("")
        if concept is not None:
            tags = " ".join(f"#{tag}" for tag in concept.tags)
            words = printable(concept.note) or f"no note: {key('concepts.note')} adds one"
            text = Content.assemble(
                (printable(concept.name), "$accent"),
                (f"  {printable(tags)}" if tags else "", "$secondary"),
                (f"  {words}", "$muted"),
            )
        self.query_one("#concepts-note", Words).update(text)
        card = self.query_one(FeatureCard)
        card.show_feature(concept.feature if concept is not None else None)
        card.give(self.row_list, max(self.row_list.row_count, 3))

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in (
            *MARKING,
            *EDITING,
            "steer",
            "steer_tag",
            "check",
            "copy",
            "filter",
        ):
            return bool(self._read and self._read.concepts) and not self.prompt.is_open
        if action in LOOKING:
            return self.context.features is not None and not self.prompt.is_open
        if action == "import_file":
            return self.context.sae_id is not None
        return True

    def close_popup(self) -> bool:
        if self.prompt.is_open:
            if self.prompt.purpose == "filter":
                self._filter("")
            return self.prompt.close()
        if self._search:
            self._filter("")
            return True
        if self._marked:
            self._marked.clear()
            self._show()
            return True
        return False

    def _filter(self, search: str) -> None:
        self._search = search
        self._show()

    @on(RowList.Opened)
    async def _open(self) -> None:
        concept = self._concept
        if concept is not None:
            await self.mi_crow.go("features", messages.OpenFeature(concept.feature))

    def action_filter(self) -> None:
        self.prompt.ask("filter", "/", self._search, hint="enter keeps · esc clears")

    def action_export(self) -> None:
        """Asks where to write the marked concepts, else those that the filter leaves."""
        marked = [concept for concept in self._concepts if key_of(concept) in self._marked]
        self._exported = frozenset(map(key_of, marked) if marked else self._shown_keys)
        some, every = len(self._exported), len(self._concepts)
        if not some:
            self.tell(UserError(self._empty_words()))
            return
        of, hint = "", "enter saves · esc cancels"
        if some != every:
            of = f"{some:,} of {every:,} concepts "
            hint = f"{'unmark' if marked else 'clear the filter'} for all · esc cancels"
        label, endings = f"export {of}to", (".json", ".csv", ".jsonl", ".jsonl.gz")
        self.ask_where(label, "concepts.json", *endings, hint=hint)

    def action_import_file(self) -> None:
        if not may_tag(self.mi_crow):
            return
        self.prompt.ask(
            "import",
            "import from",
            placeholder="a .json, .csv or .jsonl file, or a folder of batches",
            refuse=wrong_source,
        )

    @on(PromptLine.Typed)
    def _typed(self, message: PromptLine.Typed) -> None:
        if message.purpose == "filter":
            self._filter(message.value.strip())

    @on(PromptLine.Answered)
    async def _answered(self, message: PromptLine.Answered) -> None:
        value = message.value
        if message.purpose == "filter":
            self._filter(value)
        elif message.purpose == "steer_tag":
            await self.steer_by_tag(value)
        elif message.purpose == "check":
            self.check_on(value)
        elif message.purpose == "export":
            self._export(value)
        elif message.purpose == "import":
            path = self.path_in(value)
            if path is not None:
                self.import_from(path)
        else:
            self.answered_edit(message.purpose, value)

    def _export(self, text: str) -> None:
        """Writes the concepts to the file called `text`."""
        sae_id, workspace, wanted = self.context.sae_id, self.context.workspace, self._exported
        path = self.path_in(text)
        if path is None:
            return

        def change(replace: bool, annotations: "Annotations") -> str:
            from mi_crow.mechanistic.concepts.exchange.dashboards import export_concepts
            from mi_crow.mechanistic.concepts.exchange.importing import counted

            count = export_concepts(
                workspace,
                annotations,
                path,
                sae_id,
                overwrite=replace,
                wanted=lambda one: key_of(one) in wanted,
            )
            return f"Exported {counted(count)} to {path}"

        self.ask_to_replace(path, lambda replace: write(self.mi_crow, partial(change, replace)))

    def action_copy(self) -> None:
        concept = self._concept
        if concept is not None:
            name, note = visible(concept.name), visible(concept.note)
            copy(self.mi_crow, f"{concept.feature}\t{name}\t{note}", "the concept")


def no_concepts() -> str:
    tag, imports = key("features.tag"), key("concepts.import")
    return f"No concepts yet: {tag} on a feature names it, {imports} imports names from a file."
