"""The open SAE of the app: opened, built again, renamed or removed, by this app or elsewhere."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tui import messages
from tui.text import printable
from tui.threads import ThreadWork, error_sentence
from tui.watch import Scan, is_gone, renamed

if TYPE_CHECKING:
    from tui.context import AppContext
    from tui.history import History
    from tui.message_log import MessageLog
    from tui.state import SavedState


class OpensSaes(ThreadWork):
    """Mixed into the app: which SAE is open, and its index."""

    if TYPE_CHECKING:
        context: AppContext
        history: History
        message_log: MessageLog
        saved_state: SavedState
        _scan: Scan | None

        def _refresh_header(self) -> None: ...

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._requested: tuple[str, object] | None = None  # the index last asked for

    def open_sae(self, sae_id: str) -> None:
        """Makes `sae_id` the open SAE; its index opens in a thread, then SaeChanged goes out."""
        self._requested = (sae_id, self._scan_marks())
        if sae_id != self.context.sae_id:
            self.context.sae_id = sae_id
            self.context.features = None
        self.context.publish(messages.SaeChanged(sae_id, ready=False))
        self._refresh_header()
        self._open_index(sae_id)

    def close_sae(self, sae_id: str) -> None:
        """Where this SAE, which is not there any more, is the open one: opens another one, if there
        is one."""
        context = self.context
        if sae_id != context.sae_id:
            return
        rest = [sae for sae in context.saes() if sae.sae_id != sae_id]
        rest = [sae for sae in rest if sae.has_index] or rest
        if rest:
            self.open_sae(rest[-1].sae_id)
        else:
            context.sae_id = context.features = None
            context.publish(messages.SaeChanged(None, ready=False))
            self._refresh_header()

    def sae_renamed(self, old: str, new: str) -> None:
        """Has everything that names an SAE name it by its new id."""
        self.history.rename_sae(old, new)
        self.message_log.rename_sae(old, new)
        self.saved_state = replace(
            self.saved_state, screens=_renamed_in(self.saved_state.screens, old, new)
        )
        self.context.publish(messages.SaeRenamed(old, new))
        self.context.rename_in_session(old, new)
        if old == self.context.sae_id:
            self.open_sae(new)

    def follow_saes(self, before: Scan, now: Scan) -> None:
        """What a look found of SAEs that were renamed or removed, maybe by another program: what is
        said of an id that is no SAE's any more would be lost."""
        for old, new in renamed(before, now).items():
            self.sae_renamed(old, new)
        open_one = self.context.sae_id
        if open_one is not None and is_gone(open_one, before, now):
            self.close_sae(open_one)
            instead = self.context.sae_id
            opened = f"{instead} is open now" if instead is not None else ""
            said = f"{open_one} is not there any more"
            self.app.notify(printable("; ".join(filter(None, (said, opened)))), severity="warning")

    def open_some_sae(self) -> None:
        """Opens the newest indexed SAE when none is open, and the open one's index when built."""
        context = self.context
        if context.sae_id is None:
            indexed = [sae for sae in context.saes() if sae.has_index] or list(context.saes())
            if indexed:
                self.open_sae(indexed[-1].sae_id)
        elif context.features is None and self._has_new_index(context.sae_id):
            self.open_sae(context.sae_id)

    def _has_new_index(self, sae_id: str) -> bool:
        sae = self.context.sae()
        request = (sae_id, self._scan_marks())
        return sae is not None and sae.has_index and self._requested != request

    def _scan_marks(self) -> object:
        return self._scan.store_marks if self._scan else None

    def _open_index(self, sae_id: str) -> None:
        def opened(store) -> None:
            if sae_id == self.context.sae_id:  # else another SAE was opened meanwhile
                self.context.features = store
                self.context.publish(messages.SaeChanged(sae_id, ready=True))

        def failed(error: Exception) -> None:
            if sae_id == self.context.sae_id:
                self.context.features = None
                words = error_sentence(error)
                self.context.publish(messages.SaeChanged(sae_id, ready=False, error=words))

        work = partial(self.context.read_index, sae_id)
        self.in_thread(work, opened, group="index", failed=failed)


def _renamed_in(
    screens: Mapping[str, Mapping[str, Any]], old: str, new: str
) -> dict[str, Mapping[str, Any]]:
    """What screens that were not opened yet will restore."""
    from mi_crow.mechanistic.concepts.annotations_saved import rename_in_stack

    found: dict[str, Mapping[str, Any]] = {}
    for name, saved in screens.items():
        own = {**saved, "sae": new} if saved.get("sae") == old else dict(saved)
        place = own.get("map")
        if isinstance(place, dict) and place.get("sae") == old:
            own["map"] = {**place, "sae": new}
        if isinstance(stack := own.get("stack"), list):
            own["stack"] = stack = [dict(one) if isinstance(one, dict) else one for one in stack]
            rename_in_stack(stack, old, new)
        found[name] = own
    return found
