"""Marked SAEs on Runs, to compare them."""

from functools import partial
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from tui.preferences.key_words import key
from tui.widgets.lists.marks import Marks
from tui.widgets.lists.row_list import RowList

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.runs.comparison import SaeComparison
else:
    _Screen = object

MARKING = ("mark", "mark_range", "mark_all")
LEAST, MOST = 2, 12  # SAEs in a comparison


class ComparesSaes(_Screen):
    """Mixed into the Runs screen: marks SAEs, compares those or all on the layer of one."""

    _marked: Marks[str]

    if TYPE_CHECKING:
        _current: str

        def _list(self, name: str) -> RowList: ...
        def _show_lists(self) -> None: ...
        def selected(self, name: str) -> str | None: ...

    def can_compare(self, action: str) -> bool:
        """Whether there is something to mark, or to compare."""
        known = len(self.context.saes())
        if action == "compare":
            return known >= LEAST
        if action == "mark_all":
            return self._current == "saes" and known > 0
        return self.selected("saes") in self._known_saes()

    def action_mark(self) -> None:
        key = self.selected("saes")
        if key in self._known_saes():
            self._marked.toggle(key)
            self._marks_changed()
            self._list("saes").action_cursor_down()

    def action_mark_range(self) -> None:
        shown = self._shown_saes()
        key = self.selected("saes")
        if key in shown:
            self._marked.mark_range(shown, shown.index(key))
            self._marks_changed()

    def action_mark_all(self) -> None:
        self._marked.toggle_all(self._shown_saes())
        self._marks_changed()

    def clear_marks(self) -> bool:
        """Unmarks every SAE; False when none was marked."""
        if not len(self._marked):
            return False
        self._marked.clear()
        self._marks_changed()
        return True

    def _marks_changed(self) -> None:
        self._show_lists()
        self.refresh_bindings()

    def _known_saes(self) -> set[str]:
        return {sae.sae_id for sae in self.context.saes()}

    def _shown_saes(self) -> list[str]:
        known = self._known_saes()
        return [row.key for row in self._list("saes").rows if row.key in known]

    def action_compare(self) -> None:
        """Compares the marked SAEs; without marks, all on the layer of the one under the cursor
        (the newest of them, where they are many)."""
        saes, marked = self.context.saes(), set(self._marked) & self._known_saes()
        wanted = [sae for sae in saes if sae.sae_id in marked]
        if not marked:
            first = next((sae for sae in saes if sae.sae_id == self.selected("saes")), saes[-1])
            place = (first.model_id, first.layer)
            wanted = [sae for sae in saes if (sae.model_id, sae.layer) == place][-MOST:]
        if not LEAST <= len(wanted) <= MOST:
            one = len(wanted) == 1
            words = f"{len(wanted)} SAE{'' if one else 's'} {'is' if one else 'are'} "
            words += "marked" if marked else "on this layer"
            self.tell(UserError(words, hint=f"mark {LEAST} to {MOST} SAEs with {key('runs.mark')}"))
            return
        from tui.screens.runs.compare_popup import read_comparison

        self.in_thread(partial(read_comparison, wanted, saes), self._compared, group="compare")

    def _compared(self, found: "SaeComparison") -> None:
        from tui.screens.runs.compare_popup import SaeComparePopup

        self.app.push_screen(SaeComparePopup(found), self._select_sae)

    def _select_sae(self, sae_id: str | None) -> None:
        if sae_id is not None:
            self._list("saes").focus()
            self._list("saes").select(sae_id)
