"""What Inspect asks beyond the features of a text: causes of an answer, the lens, the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.content import Content

from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.screens.base import MiCrowScreen
from tui.screens.inspect.explained import (
    feature_grid,
    layer_line,
    layers_grid,
    lens_grid,
    lens_line,
)
from tui.screens.inspect.inspection import Inspection
from tui.screens.inspect.popups import CausesPopup, GridPopup, Wanted
from tui.text import printable
from tui.widgets.token_heat import quoted

ORDERS = ("meaning", "share", "surprise", "raw", "count", "first")
SHOWN = ("all", "rare", "named")
_RARE = 0.1  # density above which `rare` leaves a feature out
_MOST_SAES = 8
_MOST_BYTES = 2 << 30  # of the SAEs that are asked at once
_PINNED = 8
_GRID_ROWS = 40


@dataclass(frozen=True)
class Shown:
    """In which order features stand, and which of them."""

    order: str = "meaning"
    which: str = "all"

    def asked(self) -> dict[str, Any]:
        """What the session is asked; nothing for the usual, which works without an index too."""
        if self == Shown():
            return {}
        density = _RARE if self.which == "rare" else None
        return {"order": self.order, "max_density": density, "named": self.which == "named"}

    def words(self) -> str:
        """What differs from the usual, for the title of the list."""
        which = {"all": "", "rare": f"on at most {_RARE:.0%} of tokens", "named": "named"}
        parts = ("" if self.order == "meaning" else f"by {self.order}", which[self.which])
        return ", ".join(part for part in parts if part)

    @classmethod
    def restored(cls, saved: JsonObject) -> "Shown":
        """What `InspectScreen.state` kept; the usual for what is not known."""
        order, which = saved.text("order", "meaning"), saved.text("which", "all")
        return cls(order if order in ORDERS else "meaning", which if which in SHOWN else "all")


class Explains(MiCrowScreen):
    """The part of Inspect that opens popups. `text_read` is the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self._inspection = Inspection()
        self._sae_id: str | None = None
        self._rows: Mapping[int, Any] = {}
        self._feature: int | None = None
        self.text_read = ""
        self._shown = Shown()
        self._pinned: list[int] = []

    def action_run(self) -> None:
        raise NotImplementedError

    @property
    def token(self) -> int | None:
        """The token under the cursor."""
        raise NotImplementedError

    def _say(self, text: str) -> None:
        raise NotImplementedError

    # The order of the list, and what is pinned.

    def action_next_order(self) -> None:
        """By the next of the orders."""
        place = (ORDERS.index(self._shown.order) + 1) % len(ORDERS)
        self._show_by(Shown(ORDERS[place], self._shown.which))

    def action_next_shown(self) -> None:
        """All features, those that are rare, or the named ones."""
        place = (SHOWN.index(self._shown.which) + 1) % len(SHOWN)
        self._show_by(Shown(self._shown.order, SHOWN[place]))

    def _show_by(self, shown: Shown) -> None:
        if self.is_working("inspect"):
            return
        self._shown = shown
        self.notify(f"features {shown.words() or 'by meaning'}")
        if self._inspection.tokens:
            self.action_run()

    def action_pin(self) -> None:
        """Pins the feature to the top of the grid, or lets it go."""
        if self._feature is None:
            return
        if self._feature in self._pinned:
            self._pinned.remove(self._feature)
            self.notify(f"#{self._feature} is not pinned any more")
        elif len(self._pinned) == _PINNED:
            self.notify(f"{_PINNED} features are pinned; unpin one first", severity="warning")
        else:
            self._pinned.append(self._feature)
            self.notify(f"#{self._feature} is pinned to the grid")

    # What opens over the screen.

    def action_grid(self) -> None:
        """Features by tokens."""
        found = self._inspection
        if not found.tokens:
            self._say("type a text first")
            return
        features = [feature for feature, _ in found.top][:_GRID_ROWS]
        rows = feature_grid(found, features, self._pinned, self._rows)

        def line(key: str, token: int) -> Content:
            act = found.acts_of(int(key))[token]
            known = self._rows.get(int(key))
            name = known.meaning if known is not None else ""
            return Content.assemble(
                (f"#{key} ", "bold"),
                (f"{printable(name)} ", "$accent"),
                ("at ", "$muted"),
                quoted(found.tokens[token]),
                (f"  {act:.2f}", "bold"),
                (f"  {found.why_excluded(token)}", "$warning"),
            )

        self._open_grid(
            "Features by tokens, % of the maximum", found.tokens, rows, line, 4, opens_feature=True
        )

    def _open_grid(
        self, title: str, tokens: Sequence[str], rows: Any, line: Any, cell: int, **holds: bool
    ) -> None:
        column = self.token or 0
        popup = GridPopup(title, tokens, rows, line, cell=cell, column=column, **holds)
        self.app.push_screen(popup, self._wanted)

    def action_lens(self) -> None:
        """What the model would say after each block."""

        def opened(found: dict[str, Any]) -> None:
            self._say("")
            rows, line = lens_grid(found), partial(lens_line, found)
            title, tokens = "Logit lens: the next token", found["tokens"]
            self._open_grid(title, tokens, rows, line, 9, explains_cell=True)

        self._ask("lens", opened)

    def action_layers(self) -> None:
        """How the SAE of each layer reads the text."""

        def opened(found: dict[str, Any]) -> None:
            self._say("")
            each = {one["sae_id"]: one for one in found["saes"]}
            rows = layers_grid(found["saes"])
            self._open_grid(
                "SAEs by tokens, % of the activation explained",
                found["tokens"],
                rows,
                lambda key, token: layer_line(each[key], token),
                4,
            )

        self._ask("inspect", opened, top=_GRID_ROWS, saes=self._of_this_model(), several=True)

    def action_attribute(self) -> None:
        """Explains what follows the token under the cursor."""
        self._attribute(self.token)

    def _attribute(self, token: int | None, target: str | None = None) -> None:
        def opened(found: dict[str, Any]) -> None:
            self._say("")
            self.app.push_screen(CausesPopup(found, self._without), self._wanted)

        saes = self._of_this_model(one_a_layer=True)
        own = target is None
        self._ask("attribute", opened, position=token, target=target, own_token=own, saes=saes)

    def _without(self, ablated: Sequence[tuple[str, int]], position: int) -> dict[str, Any]:
        client = self.context.ready_session(self._sae_id)
        pairs = [list(pair) for pair in ablated]
        return client.call(
            "predict", text=self.text_read, ablated=pairs, position=position, sae_id=self._sae_id
        )

    def _of_this_model(self, *, one_a_layer: bool = False) -> list[str]:
        """The SAEs of the open one's model, itself included, as many as memory should hold."""
        own = self.context.sae()
        if own is None:
            return []
        chosen, total, layers = [own.sae_id], own.bytes, {own.layer}
        for one in self.context.saes():
            fits = total + one.bytes <= _MOST_BYTES and len(chosen) < _MOST_SAES
            if one.model_id != own.model_id or one.sae_id == own.sae_id or not fits:
                continue
            if not one_a_layer or one.layer not in layers:
                chosen.append(one.sae_id)
                total, layers = total + one.bytes, {*layers, one.layer}
        return chosen

    def _ask(self, op: str, then: Any, several: bool = False, **asked: Any) -> None:
        """Asks the session about the text that is shown."""
        if not self._inspection.tokens:
            self._say("type a text first")
            return
        if self.is_working("explain"):
            return
        self._say("asking…" if self.context.session_is_ready else "loading the model…")
        sae_id, text = self._sae_id, self.text_read

        def ask() -> dict[str, Any]:
            client = self.context.ready_session(sae_id)
            found = client.call(op, text=text, sae_id=sae_id, **asked)
            return {**found, "saes": found.get("saes") or [found]} if several else found

        self.in_thread(ask, then, group="explain", failed=self._not_explained)

    def _not_explained(self, error: Exception) -> None:
        self._say("failed")
        self.tell(error)

    async def _wanted(self, wanted: Wanted | None) -> None:
        """Does what was chosen in a popup."""
        if wanted is None:
            return
        if wanted.what == "attribute":
            self._attribute(wanted.token, wanted.target)
            return
        sae_id = wanted.sae_id or self._sae_id or ""
        if wanted.what == "steer" and wanted.feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(wanted.feature, sae_id))
            return
        known = {one.sae_id for one in self.context.saes()}
        if sae_id in known and sae_id != self.context.sae_id:
            self.mi_crow.open_sae(sae_id)
        if wanted.feature is not None:
            await self.mi_crow.go("features", messages.OpenFeature(wanted.feature))
