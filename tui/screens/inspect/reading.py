"""Having the session read the text of Inspect: when somebody asks, and while somebody types."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from textual import on
from textual.widgets import Button

from mi_crow.errors import UserError
from tui.screens.inspect.explaining import Explains
from tui.screens.inspect.inspection import Inspection, inspection_from
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.shown import Shown
from tui.widgets.area import Area
from tui.widgets.token_pane import TokenPane
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

TOP_FEATURES = 40


@dataclass(frozen=True)
class Asked:
    """What the session is asked about a text."""

    sae_id: str | None
    text: str
    windows: bool
    shown: Shown

    def settings(self) -> dict[str, Any]:
        """What is said beside the text."""
        return {"windows": self.windows, **self.shown.asked()}


@dataclass(frozen=True)
class Inspected:
    """What the session found in a text, with the names of the features."""

    asked: Asked
    results: Mapping[str, Any]
    inspection: Inspection
    rows: "Mapping[int, FeatureRow]"
    seconds: float


class Reads(Explains):
    """The part of Inspect that has a text read. Its body has `#inspect-text` and
    `#inspect-trouble`."""

    def __init__(self) -> None:
        super().__init__()
        self._windows = False  # whether a long text is read in windows or truncated
        self._asked: Asked | None = None  # what was asked last

    @property
    def area(self) -> Area:
        return self.query_one("#inspect-text", Area)

    @property
    def text_now(self) -> str:
        """What is in the field."""
        return self.area.text

    def inspected(self, read: Inspected) -> None:
        """Shows what was found."""
        raise NotImplementedError

    @on(Button.Pressed, "#inspect-button")
    def action_run(self) -> None:
        if not self.area.text.strip():
            self._say("type a text first")
            return
        self.leave_field()  # what is typed from here on is meant for the screen
        if self._ask_about_text(self._not_inspected):
            self._say("reading…" if self.context.session_is_ready else "loading the model…")

    @on(Area.Changed, "#inspect-text")
    def _typed(self) -> None:
        """Reads what was typed once the keys rest, where the model is loaded."""
        if self.area.has_focus and self.context.session_is_ready:
            self.when_rested("typed", self._read_typed)

    def _read_typed(self) -> None:
        fresh = self.area.text.strip() and self.area.text != self.text_read
        if fresh and self.area.has_focus and self.context.session_is_ready:
            self._ask_about_text(lambda _: self._say("failed"))

    def _ask_about_text(self, failed: Any) -> bool:
        """Asks, unless just that is being answered; of several texts only the last is read."""
        asked = Asked(self._sae_id, self.area.text, self._windows, self._shown)
        if self.is_working("inspect") and asked == self._asked:
            return False
        self._asked = asked
        self.in_thread(
            partial(self._inspect, asked),
            self.inspected,
            group="inspect",
            failed=failed,
            trouble=self.query_one("#inspect-trouble", Trouble),
        )
        return True

    def _inspect(self, asked: Asked) -> Inspected:
        client = self.context.ready_session(asked.sae_id)
        started = monotonic()
        result = client.call(
            "inspect",
            text=asked.text,
            top=TOP_FEATURES,
            sae_id=asked.sae_id,
            **asked.settings(),
        )
        inspection = inspection_from(result)
        seconds = monotonic() - started
        names = self.names_of(inspection, asked.sae_id)
        return Inspected(asked, result, inspection, names, seconds)

    def names_of(self, inspection: Inspection, sae_id: str | None) -> "dict[int, FeatureRow]":
        """The rows of the index of all features that are named in an inspection. Blocks."""
        return self.context.rows_of(sae_id, inspection.features())

    def put_text(self, text: str) -> bool:
        """Puts a text into the field; whether that replaced one that was not read, which undoing in
        the field brings back."""
        typed = self.area.text
        if typed != text:
            self.area.put(text)
        return bool(typed.strip()) and typed not in (text, self.text_read)

    def _drill(self, sae_id: str, token: int, read: Found) -> None:
        if self.context.find_sae(sae_id) is None:
            self.tell(UserError(f"SAE {sae_id!r} is not in this workspace"))
            return
        if sae_id == self.context.sae_id and read.text == self.text_read:
            self.query_one(TokenPane).cursor = token
            return
        self.put_text(read.text)
        self._windows, self._drilled = bool(read.settings.get("windows")), token
        if sae_id == self.context.sae_id:
            self.action_run()
        else:
            self.mi_crow.open_sae(sae_id)

    def _not_inspected(self, error: Exception) -> None:
        self._say("failed")
        self.tell(error)

    def action_windows(self) -> None:
        """Switches between reading a long text in windows of the context and truncating it."""
        self._windows = not self._windows
        self.action_run()
