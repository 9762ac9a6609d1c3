"""Marked concepts on the Concepts screen: one, a range, all that are shown."""

from typing import TYPE_CHECKING

from mi_crow.store.json_object import JsonObject
from tui.screens.concepts.rows import ConceptRow, key_of
from tui.screens.prompted import PromptScreen
from tui.widgets.lists.marks import Marks
from tui.widgets.lists.sorted_list import SortedList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mi_crow.mechanistic.concepts.annotations import Concept

MARKING = ("mark", "mark_range", "mark_all")


class ConceptMarkScreen(PromptScreen):
    """Marks rows, and says on which concepts an action works: the marked, else the one under the
    cursor."""

    def __init__(self) -> None:
        super().__init__()
        self._marked = Marks[str]()

    @property
    def row_list(self) -> SortedList:
        return self.query_one("#concepts-list", SortedList)

    @property
    def _concepts(self) -> "Sequence[Concept]":
        """All of the open SAE."""
        raise NotImplementedError

    def _show(self) -> None:
        """Draws the list again."""
        raise NotImplementedError

    @property
    def _concept(self) -> "Concept | None":
        """The one under the cursor."""
        row = self.row_list.row
        return row.concept if isinstance(row, ConceptRow) else None

    @property
    def _chosen(self) -> "list[Concept]":
        marked = [concept for concept in self._concepts if key_of(concept) in self._marked]
        single = self._concept
        return marked or ([single] if single is not None else [])

    def action_mark(self) -> None:
        key = self.row_list.key
        if key is not None:
            self._marked.toggle(key)
            self._show()
            self.row_list.action_cursor_down()

    def action_mark_range(self) -> None:
        shown = self._shown_keys
        if shown:
            self._marked.mark_range(shown, self.row_list.cursor)
            self._show()

    def action_mark_all(self) -> None:
        self._marked.toggle_all(self._shown_keys)
        self._show()

    @property
    def _shown_keys(self) -> list[str]:
        return [row.key for row in self.row_list.rows]


def saved_marks(saved: JsonObject) -> Marks[str]:
    """The marks of a saved state. Raises CorruptDataError for what are none."""
    return Marks(saved.texts("marks", ()))
