"""What Inspect asks the model session about a text, one thing at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from tui.preferences.key_words import key
from tui.screens.inspect.inspection import Inspection
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.popups import opened_over
from tui.screens.prompted import PromptScreen
from tui.threads import told_words
from tui.widgets.trouble import Trouble


class AsksSession(PromptScreen):
    """The part of Inspect that asks. `text_read` is the text that is shown; the body has
    `#explain-trouble`."""

    def __init__(self) -> None:
        super().__init__()
        self._inspection = Inspection()
        self._sae_id: str | None = None
        self.text_read = ""

    def _say(self, text: str) -> None:
        raise NotImplementedError

    @property
    def text_now(self) -> str:
        """What is in the field."""
        raise NotImplementedError

    def _nothing_read(self) -> bool:
        """Whether no text is shown; says then what is to be done first, or waited for."""
        if self._inspection.tokens:
            return False
        if self.is_working("inspect"):
            self.notify("The text is still being read")
        else:
            typed = self.text_now.strip()
            self._say(f"{key('inspect.run')} reads it" if typed else "type a text first")
        return True

    def _kept(
        self, kind: Any, saes: Sequence[str] = (), read: Found | None = None, **settings: Any
    ) -> Any:
        """What will be saved of an answer to a question about a text that was read; without
        `read`, the one that is shown now."""
        text = read.text if read else self.text_read
        own = (self._sae_id,) if self._sae_id else ()
        model = self.context.session_state.model_id
        said = {name: value for name, value in settings.items() if value is not None}

        def found(results: Mapping[str, Any]) -> Found:
            model_id = str(results.get("model_id") or model)
            return Found(kind, text, results, tuple(saes) or own, model_id, said)

        return found

    def _ask(self, op: str, then: Any, **asked: Any) -> None:
        """Asks the session about the text that is shown."""
        if self._nothing_read():
            return
        self.ask_session(op, then, text=self.text_read, **asked)

    def ask_session(self, op: str, then: Any, *, failed: Any = None, **asked: Any) -> None:
        """Asks the session one thing at a time; `then` opens a popup with the answer, `failed`
        gets what went wrong, and `#explain-trouble` keeps it."""
        if self.is_working("explain"):
            return
        self._say_asking("asking…" if self.context.session_is_ready else "loading the model…")
        sae_id = self._sae_id

        def ask() -> dict[str, Any]:
            return self.context.ready_session(sae_id).call(op, sae_id=sae_id, **asked)

        def answered(found: dict[str, Any]) -> None:
            self._say_asking("")
            then(found)

        self.in_thread(
            ask,
            answered,
            group="explain",
            failed=failed or self._not_explained,
            trouble=self.query_one("#explain-trouble", Trouble),
            opens=True,
            slow=True,
        )

    def _say_asking(self, words: str) -> None:
        """Says it here, and on what is open over the screen."""
        self._say(words)
        for one in opened_over(self):
            one.say(words)

    def _not_explained(self, error: Exception) -> None:
        self._say("failed")
        for one in opened_over(self):
            one.say(told_words(error)[0])  # it covers the pane that keeps it
        self.tell(error)
