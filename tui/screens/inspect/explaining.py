"""What Inspect asks beyond the features of a text: causes of an answer, the lens, the layers."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from textual.content import Content

from mi_crow.mechanistic.steering.known import of_one_model
from tui import messages
from tui.screens.inspect.asking import Asked, Before, asked_for, fields, shown_token
from tui.screens.inspect.asking_session import AsksSession
from tui.screens.inspect.explained import (
    feature_grid,
    layer_line,
    layers_grid,
    lens_grid,
    lens_line,
    strongest_grid,
)
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.popups import CausesPopup, GridPopup, Look, Wanted, opened_over
from tui.screens.inspect.shown import ORDERS, SHOWN, Shown
from tui.text import printable
from tui.widgets.forms.fields import Values
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.layers import layer_of, layer_words
from tui.widgets.token_grid import GridRow
from tui.widgets.token_heat import exact

_PINNED = 8
_GRID_ROWS = 40


class Explains(AsksSession):
    """The part of Inspect that opens popups."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: Mapping[int, Any] = {}
        self._feature: int | None = None
        self._found: Found | None = None  # what is shown, as it would be saved
        self._shown = Shown()
        self._pinned: list[int] = []
        self._drilled: int | None = None  # the token to show once another layer has read the text

    def action_run(self) -> None:
        raise NotImplementedError

    @property
    def token(self) -> int | None:
        """The token under the cursor."""
        raise NotImplementedError

    @property
    def reading_asked(self) -> dict[str, Any]:
        """How the text that is shown was read, where it is not the usual way."""
        return self._found.reading if self._found else {}

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
        if self._nothing_read():
            return
        found, read = self._inspection, self._found
        features = [feature for feature, _ in found.top][:_GRID_ROWS]
        rows = feature_grid(found, features, self._pinned, self._rows)
        rows = [*self.more_rows(), *rows]

        def line(key: str, token: int) -> Content:
            if not key.isdecimal():
                return self.more_line(key, token)
            act = found.acts_of(int(key))[token]
            known = self._rows.get(int(key))
            name = known.meaning if known is not None else ""
            layer = layer_words(layer_of(known))
            return Content.assemble(
                (f"#{key} ", "bold"),
                (f"{layer}  " if layer else "", "$muted"),
                (f"{printable(name)} ", "$accent"),
                ("at ", "$muted"),
                exact(found.tokens[token]),
                (f"  {act:.2f}", "bold"),
                (f"  {found.why_excluded(token)}", "$warning"),
            )

        looks = [Look("Features by tokens, % of the maximum", rows, 4)]
        popup = GridPopup(
            found.tokens,
            looks,
            line,
            column=self.token or 0,
            explain=partial(self._attribute, read),
            opens_feature=True,
        )
        self.app.push_screen(popup, self._wanted)

    def more_rows(self) -> list[GridRow]:
        """Rows of the grid above the features."""
        return []

    def more_line(self, key: str, token: int) -> Content:
        """One cell of these."""
        raise NotImplementedError

    def action_lens(self) -> None:
        """What the model would say after each block."""
        kept = self._kept("lens", **self.reading_asked)
        self._ask("lens", lambda found: self.open_lens(found, kept(found)), **self.reading_asked)

    def open_lens(self, found: dict[str, Any], kept: Found) -> None:
        """Shows a logit lens."""
        looks = [Look("Logit lens: the next token", lens_grid(found), 9)]
        line = partial(lens_line, found)
        column = self.token or 0
        popup = GridPopup(
            found["tokens"],
            looks,
            line,
            column=column,
            explain=partial(self._attribute, kept),
            explains_cell=True,
            found=kept,
        )
        self.app.push_screen(popup, self._wanted)

    def action_layers(self) -> None:
        """How the SAE of each layer reads the text."""
        saes = self._of_this_model()
        kept = self._kept("layers", saes, **self.reading_asked)

        def opened(found: dict[str, Any]) -> None:
            self.open_layers(found, kept(found))

        self._ask("inspect", opened, top=_GRID_ROWS, saes=saes, **self.reading_asked)

    def open_layers(self, found: dict[str, Any], kept: Found) -> None:
        """Shows how several SAEs read a text; enter drills into one."""
        saes = found.get("saes") or [found]
        each = {one["sae_id"]: one for one in saes}
        looks = [
            Look("SAEs by tokens, % of the activation explained", layers_grid(saes), 4),
            Look("SAEs by tokens, the first feature", strongest_grid(saes), 12),
        ]
        order = [row.key for row in looks[0].rows]
        row = order.index(self._sae_id) if self._sae_id in order else 0
        popup = GridPopup(
            found["tokens"],
            looks,
            lambda key, token: layer_line(each[key], token),
            column=self.token or 0,
            row=row,
            explain=partial(self._attribute, kept),
            chooses_row=True,
            found=kept,
        )

        async def closed(wanted: Wanted | None) -> None:
            if wanted is None or wanted.what != "choose":
                await self._wanted(wanted)
            elif wanted.sae_id is not None:
                self._drill(wanted.sae_id, wanted.token or 0, kept)

        self.app.push_screen(popup, closed)

    def action_attribute(self) -> None:
        """Explains what follows the token under the cursor."""
        if not self._nothing_read():
            self._attribute(self._found, self.token)

    def _attribute(self, read: Found | None, token: int | None, target: str | None = None) -> None:
        """Explains a token of a text that was read, as `read` says."""
        if read is None:
            return
        saes = self._of_this_model(one_a_layer=True)
        kept = self._kept("attribute", saes, read, token=token, target=target, **read.reading)
        self.ask_session(
            "attribute",
            lambda found: self.open_causes(found, kept(found)),
            text=read.text,
            position=token,
            target=target,
            own_token=target is None,
            saes=saes,
            **read.reading,
        )

    def open_causes(self, found: dict[str, Any], kept: Found) -> None:
        """Shows the causes of an answer."""
        ablate = partial(self._without, kept.text, int(found.get("start") or 0), kept.reading)

        def ask(popup: CausesPopup) -> None:
            before = Before.of_answer(found, kept.sae_ids, kept.settings)
            tokens = int(found.get("tokens_read") or len(found["tokens"]))
            self._ask_why(kept.text, tokens, before, kept.reading, popup)

        for note in found.get("notes") or ():
            self.notify(printable(note))
        self.app.push_screen(CausesPopup(found, ablate, kept, ask), self._wanted)

    def action_ask_why(self) -> None:
        """Asks what is to be explained: a logit, a difference, a log probability or a feature."""
        if self._nothing_read():
            return
        tokens, token = self._inspection.tokens, self.token
        own = tokens[token + 1] if token is not None and token + 1 < len(tokens) else ""
        feature = "" if self._feature is None else f"{self._sae_id}/{self._feature}"
        saes = tuple(self._of_this_model(one_a_layer=True))
        before = Before(saes, token=token, target=shown_token(own), feature=feature)
        self._ask_why(self.text_read, len(tokens), before, self.reading_asked)

    def _ask_why(
        self,
        text: str,
        tokens: int,
        before: Before,
        reading: Mapping[str, Any],
        instead_of: CausesPopup | None = None,
    ) -> None:
        """The form stays open with what the session has to say against the question; the answer
        opens in place of `instead_of`."""
        known, sae_id = self._of_this_model(), self._sae_id
        several = [one.sae_id for one in self.context.saes() if one.several]
        kept = self._kept("attribute")

        def ask(values: Values) -> tuple[Asked, dict[str, Any]]:
            asked = asked_for(values, known, sae_id or "", tokens, several)
            client = self.context.ready_session(sae_id)
            how = {**asked.request(), **reading}
            return asked, client.call("attribute", sae_id=sae_id, text=text, **how)

        def opened(asked: Asked, found: dict[str, Any]) -> None:
            if instead_of is not None and instead_of.is_current:
                instead_of.dismiss(None)
            said = {**asked.settings(), **reading}
            model = kept(found).model_id
            self.open_causes(found, Found("attribute", text, found, asked.saes, model, said))

        def answered(answer: tuple[Asked, dict[str, Any]] | None) -> None:
            if answer is not None:  # from here: `instead_of`, which asked, hears nothing any more
                self.call_later(opened, *answer)

        way, busy = ("app.inspect", "inspect.ask"), "asking the model…"
        form = FormPopup("Why", fields(before, known), ask, "Explain", busy=busy, way=way)
        self.app.push_screen(form, answered)

    def _without(
        self,
        text: str,
        start: int,
        reading: Mapping[str, Any],
        ablated: Sequence[tuple[str, int]],
        position: int,
    ) -> dict[str, Any]:
        client = self.context.ready_session(self._sae_id)
        return client.call(
            "predict",
            text=text,
            ablated=[list(pair) for pair in ablated],
            position=start + position,
            sae_id=self._sae_id,
            **reading,
        )

    def _of_this_model(self, *, one_a_layer: bool = False) -> list[str]:
        """The SAEs of the open one's model, itself included, as many as memory should hold."""
        own = self.context.sae()
        if own is None:
            return []
        return of_one_model(own, self.context.saes(), one_a_layer=one_a_layer)

    async def _wanted(self, wanted: Wanted | None) -> None:
        """Does what was chosen in a popup."""
        if wanted is None:
            return
        for popup in opened_over(self):
            popup.dismiss(None)
        sae_id = wanted.sae_id or self._sae_id or ""
        known = self.context.find_sae(sae_id) is not None
        if wanted.what == "steer" and wanted.feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(wanted.feature, sae_id))
        elif wanted.what == "steer group" and wanted.target is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(0, sae_id, group=wanted.target))
        elif wanted.feature is not None:
            if known and sae_id != self.context.sae_id:
                self.mi_crow.open_sae(sae_id)
            await self.mi_crow.go("features", messages.OpenFeature(wanted.feature))

    def _drill(self, sae_id: str, token: int, read: Found) -> None:
        """Has another layer's SAE read the text of `read`, with the cursor on `token`."""
        raise NotImplementedError
