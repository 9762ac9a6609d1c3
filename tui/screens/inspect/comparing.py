"""Two texts on Inspect: features by difference, sets of texts, and patching one with the other."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors.texts import FEWEST_OF_SET, names_texts, parted
from tui.screens.inspect.asking import shown_token, typed_answer
from tui.screens.inspect.differences import DifferencesPopup
from tui.screens.inspect.explained import patch_grid, patch_line, patched_tokens
from tui.screens.inspect.explaining import Explains
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.popups import GridPopup, Look, Wanted
from tui.text import printable
from tui.widgets.forms.fields import Default, FormField, Values
from tui.widgets.forms.popup import FormPopup

_WHAT = ("resid", "attn", "mlp", "sae")
_WORDS = {
    "resid": "the stream",
    "attn": "attention's output",
    "mlp": "the MLP's output",
}
_NO_FIRST, _NO_OTHER = "no first text given", "no text given to compare it with"
_NO_CLEAN, _NO_CORRUPTED = "no clean prompt given", "no corrupted prompt given"
_CLEAN = "the prompt whose answer is looked for"
_RESTORE = "what of the clean prompt is put into the other, at each layer and token"
_NOTE = "a text, or a set: label:sea, documents:3,7-12, others, a file"


@dataclass(frozen=True)
class Patching:
    """Two prompts, and what is restored of the first in the second."""

    clean: str
    corrupted: str
    what: str = "resid"
    target: str | None = None  # the clean prompt's next token; None: the likeliest
    against: str | None = None

    def request(self) -> dict[str, Any]:
        """What the session is asked."""
        asked = {name: value for name, value in vars(self).items() if name != "what"}
        return asked | ({"features": True} if self.what == "sae" else {"module": self.what})

    def settings(self) -> dict[str, Any]:
        """What is saved with the answer, beside the clean prompt."""
        said = {name: value for name, value in vars(self).items() if name != "clean"}
        return {name: value for name, value in said.items() if value is not None}


class Compares(Explains):
    """The part of Inspect that asks about two texts."""

    def __init__(self) -> None:
        super().__init__()
        self._against = ""  # the text that was compared with last
        self._first = "", ""  # the text on the screen then, and what was compared in its place

    def on_compare_texts(self) -> None:
        self.action_compare()

    def action_compare(self) -> None:
        """Asks for another text, or for two sets."""
        here = " ".join(self.text_now.split())
        before, first = self._first
        if before != here:
            first = here
        fields = (
            FormField("text", "first", first, _NOTE, required=True, missing=_NO_FIRST, lines=True),
            FormField(
                "against",
                "against",
                self._against,
                _NOTE,
                required=True,
                missing=_NO_OTHER,
                lines=True,
            ),
        )
        popup = FormPopup(
            "Compare", fields, _two, "Compare", way=("app.inspect", "inspect.compare")
        )
        self.app.push_screen(popup, lambda asked: self._compare(*asked) if asked else None)

    def _compare(self, text: str, against: str, are_sets: bool) -> None:
        self._against = against
        self._first = " ".join(self.text_now.split()), text
        if are_sets:
            kept = self._kept_pair("contrast", " ".join(f"{text} against {against}".split()))
            then = partial(self._open_differences, kept)
            sets = {"texts": parted(text), "against": parted(against)}
            self.ask_session("contrast", then, **sets, top=40)
            return
        text, against = (" ".join(one.split()) for one in (text, against))
        kept = self._kept_pair("compare", text, against=against, **self._shown.asked())
        then = partial(self._open_differences, kept)
        asked = self._shown.asked()
        self.ask_session("compare", then, text=text, against=against, top=40, **asked)

    def _kept_pair(self, kind: Any, text: str, **settings: Any) -> Any:
        kept = self._kept(kind, **settings)

        def found(results: dict[str, Any]) -> Found:
            one = kept(results)
            return Found(kind, text, results, one.sae_ids, one.model_id, one.settings)

        return found

    def _open_differences(self, kept: Any, found: dict[str, Any]) -> None:
        self.open_differences(found, kept(found))

    def open_differences(self, found: dict[str, Any], kept: Found) -> None:
        """Shows a comparison of two texts or sets, with the names that features have now."""
        sae_id, features = found["sae_id"], [int(row["feature"]) for row in found["features"]]

        def names() -> dict[int, str]:
            rows = self.context.rows_of(sae_id, features)
            return {feature: row.meaning for feature, row in rows.items()}

        def opened(known: dict[int, str]) -> None:
            popup = DifferencesPopup(found, known, kept, patch)
            self.app.push_screen(popup, self._wanted)

        def patch() -> None:
            self._patch(Patching(found["first"]["text"], found["second"]["text"]))

        self.in_thread(names, opened, group="explain", failed=self._not_explained, opens=True)

    # Patching.

    def action_patch(self) -> None:
        """Asks for two prompts of the same length and their answers."""
        self._ask_to_patch(Patching(" ".join(self.text_now.split()), self._against))

    def _ask_to_patch(self, before: Patching) -> None:
        """The form stays open with what the session has to say against the prompts."""
        likeliest = Default("", "the likeliest token")
        target, other = (shown_token(one or "") for one in (before.target, before.against))
        fields = (
            FormField("text", "clean", before.clean, _CLEAN, required=True, missing=_NO_CLEAN),
            FormField(
                "against",
                "corrupted",
                before.corrupted,
                "the other prompt, of as many tokens",
                required=True,
                missing=_NO_CORRUPTED,
            ),
            FormField("what", "restore", before.what, _RESTORE, _WHAT, closed=True),
            FormField("target", "answer", target, "answer to the clean prompt", default=likeliest),
            FormField(
                "other",
                "other answer",
                other,
                "answer to the corrupted prompt",
                default=likeliest,
            ),
        )
        sae_id = self._sae_id

        def ask(values: Values) -> tuple[Patching, dict[str, Any]]:
            asked = _patching(values)
            client = self.context.ready_session(sae_id)
            return asked, client.call("patch", sae_id=sae_id, **asked.request())

        def answered(answer: tuple[Patching, dict[str, Any]] | None) -> None:
            if answer is not None:
                self._patched(*answer)

        way, busy = ("app.inspect", "inspect.patch"), "asking the model…"
        form = FormPopup("Patch", fields, ask, "Patch", busy=busy, way=way)
        self.app.push_screen(form, answered)

    def _patch(self, asked: Patching) -> None:
        """Patches at once; what is wrong with the prompts can be mended in the form."""

        def failed(error: Exception) -> None:
            self._not_explained(error)
            if isinstance(error, UserError):
                self._ask_to_patch(asked)

        then = partial(self._patched, asked)
        self.ask_session("patch", then, failed=failed, **asked.request())

    def _patched(self, asked: Patching, found: dict[str, Any]) -> None:
        self._against = asked.corrupted
        kept = self._kept_pair("patch", asked.clean, **asked.settings())
        self.open_patching(found, kept(found))

    def open_patching(self, found: dict[str, Any], kept: Found) -> None:
        """Shows what restoring brings back; `d` restores something else."""
        what = str(found.get("what") or "resid")
        features = "sae" if what not in _WHAT else what
        asked = str(kept.settings.get("what") or features)
        following = _WHAT[(_WHAT.index(asked) + 1) % len(_WHAT)]
        looks = [Look(f"Restoring {_restored(what)}: % of the difference", patch_grid(found), 5)]
        popup = GridPopup(
            patched_tokens(found),
            looks,
            partial(patch_line, found),
            column=_strongest(found)[1],
            row=_strongest(found)[0],
            other=following,
            found=kept,
        )

        def closed(wanted: Wanted | None) -> None:
            if wanted is not None and wanted.what == following:
                said = kept.settings
                corrupted = str(said.get("corrupted") or "")
                answers = said.get("target"), said.get("against")
                self._patch(Patching(kept.text, corrupted, following, *answers))

        for note in found.get("notes") or ():
            self.notify(printable(note))
        self.app.push_screen(popup, closed)


def _restored(what: str) -> str:
    """What was restored, as the answer calls it: a module, an SAE, or one of its features."""
    sae = f"what {what}'s features write" if what.startswith("SAE ") else what
    return printable(_WORDS.get(what, sae))


def _two(values: Values) -> tuple[str, str, bool]:
    """Both texts, and whether they are sets or names of them; looks whether there are such
    files."""
    text, against = str(values["text"]), str(values["against"])
    if text.strip() == against.strip():
        raise UserError("both texts are the same", hint="write another one")
    sets = any(names_texts(one) or len(parted(one)) >= FEWEST_OF_SET for one in (text, against))
    return text, against, sets


def _patching(values: Values) -> Patching:
    """What the form asks. Raises WrongValueError for an answer that is no token."""
    answers = [typed_answer(str(values[name]), name) for name in ("target", "other")]
    return Patching(str(values["text"]), str(values["against"]), str(values["what"]), *answers)


def _strongest(found: dict[str, Any]) -> tuple[int, int]:
    """Row of the grid and token of the greatest effect."""
    rows = list(reversed(found["effects"]))
    cells = [(abs(v), -n, -t) for n, row in enumerate(rows) for t, v in enumerate(row)]
    _, row, token = max(cells, default=(0, 0, 0))
    return -row, -token
