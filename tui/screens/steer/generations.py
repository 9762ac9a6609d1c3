"""The popups over saved generations: their list, and two of them beside each other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, cast

from textual import on
from textual.app import ComposeResult

from mi_crow.bounds import SEED
from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.chat.branches import Branches
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.store.json_object import JsonObject
from tui.actions import bindings
from tui.messages import ModelAlone
from tui.preferences.key_words import key
from tui.screens.steer.board import ANSWERS, turns_of, words_of
from tui.screens.steer.constraint import Constraint
from tui.screens.steer.stack import stack_text
from tui.screens.steer.writing import MOST_SAMPLES, Plan, SamplingSettings
from tui.text import number, printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, ListHeading, Row, RowList
from tui.widgets.stream_text import Passage, StreamText

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import SavedGeneration


@dataclass(frozen=True)
class KeptChoice:
    """What to do with saved generations: open, again, remove, export or compare."""

    action: str
    generations: "tuple[SavedGeneration, ...]"


class GenerationsPopup(Popup[KeptChoice]):
    """Lists saved generations; dismisses with what to do with the marked, or the one under the
    cursor."""

    HEADING = "Saved generations"
    BINDINGS = [*bindings("popup", "close"), *bindings("kept")]

    def __init__(self, found: "Sequence[SavedGeneration]") -> None:
        super().__init__(classes="presets")
        self._found = {str(one.id): one for one in found}
        self._marked: list[str] = []

    def compose_box(self) -> ComposeResult:
        rows = RowList(
            [
                Column("prompt"),
                Column("changes", 26),
                Column("KL", 6, "right"),
                Column("saved", 16, from_width=70),
                Column("SAE", 20, from_width=92),
            ],
            empty=f"none yet: {key('steer.save')} saves what was generated",
        )
        if self._found:
            yield ListHeading("  prompt", rows)
        yield rows

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self._found) or action not in ("choose", "mark", "select_row")

    def on_mount(self) -> None:
        self._show()
        rows = self.query_one(RowList)
        rows.styles.height = min(max(len(self._found), 1), 16)
        rows.focus()

    def _show(self) -> None:
        rows = [generation_row(one, name in self._marked) for name, one in self._found.items()]
        self.query_one(RowList).set_rows(rows)

    @on(RowList.Opened)
    def _open(self) -> None:
        self._choose("open")

    def action_choose(self, action: str) -> None:
        self._choose(action)

    def action_mark(self) -> None:
        if (name := self.query_one(RowList).key) is not None:
            if name in self._marked:
                self._marked.remove(name)
            else:
                self._marked.append(name)
            self._show()
            self.query_one(RowList).action_cursor_down()

    def _choose(self, action: str) -> None:
        here = self.query_one(RowList).key
        if here is None:
            return
        marked = self._marked if self._marked and action not in ("open", "again") else [here]
        if action == "compare" and len(marked) != 2:
            mark = key("kept.mark")
            self.notify(f"Mark two generations with {mark} to compare them", severity="warning")
            return
        chosen = tuple(self._found[name] for name in marked)
        self.dismiss(cast("KeptChoice", KeptChoice(action, chosen)))


class ComparePopup(Popup[None]):
    """Two saved generations under one another: what made each, and both texts."""

    HEADING = "Two saved generations"

    def __init__(self, pair: "Sequence[SavedGeneration]") -> None:
        super().__init__(classes="comparing-texts")
        self._pair = pair

    def compose_box(self) -> ComposeResult:
        yield StreamText()

    def on_mount(self) -> None:
        text = self.query_one(StreamText)
        text.show(compared(self._pair))
        text.focus()


def generation_row(one: "SavedGeneration", marked: bool) -> Row:
    kl = one.metrics.get("kl")
    return Row(
        str(one.id),
        (
            Cell("● " if marked else "  ", "$accent", ((printable(_asked(one)), ""),)),
            Cell(_changes(one), "$muted"),
            Cell(number(kl, 2) if isinstance(kl, int | float) else "", "$muted"),
            Cell(_when(one), "$muted"),
            Cell(printable(", ".join(one.sae_ids)), "$muted"),
        ),
    )


def compared(pair: "Sequence[SavedGeneration]") -> list[Passage]:
    """Both steered texts and both baselines, the words that only one of two has marked, and under
    the second how far they differ. Over each is what made it, with the settings in which the two
    differ. Baselines that are the same stand there once."""
    found: list[Passage] = []
    for side in ("steered", "baseline"):
        first, second = (_passage(one, side, pair) for one in pair)
        if side == "baseline" and replace(first, title="") == replace(second, title=""):
            times = " and ".join(map(_when, pair))
            found.append(replace(first, title=f"baseline of both · {times}"))
        else:
            found += _marked(first, second)
    return found


def _passage(one: "SavedGeneration", side: str, pair: "Sequence[SavedGeneration]") -> Passage:
    text = one.steered if side == "steered" else one.baseline
    title = f"baseline · {_when(one)}"
    if side == "steered":
        own, others = _settings(one), [_settings(other) for other in pair if other is not one]
        differs = [
            f"{name} {value}"
            for name, value in own.items()
            if any(other.get(name) != value for other in others)
        ]
        title = " · ".join(["steered", _changes(one) or "no interventions", *differs])
    try:
        chat = chat_of(one)
    except UserError:  # the question and the answers are shown all the same
        chat = None
    if chat is None:
        return Passage(one.prompt, text, title)
    turns = turns_of(chat.steered if side == "steered" else chat.baseline)
    return Passage(f"{ANSWERS}: ", text, title, turns=turns)


def _marked(first: Passage, second: Passage) -> list[Passage]:
    """Two texts with the words marked that are not in both at that place."""
    words = tuple(words_of(one.text) for one in (first, second))
    own = [[word.strip() for word in some] for some in words]
    only: tuple[list[int], list[int]] = [], []
    for tag, start, stop, other, last in SequenceMatcher(None, *own, autojunk=False).get_opcodes():
        if tag != "equal":
            only[0].extend(range(start, stop))
            only[1].extend(range(other, last))
    begins = min((some[0] for some in only if some), default=None)
    said = "the same text"
    if begins is not None:
        said = f"differs from word {begins + 1} on: {len(only[1])} of {len(own[1])} words"
    marked = [
        replace(one, tokens=tokens, differ=tuple(places))
        for one, tokens, places in zip((first, second), words, only, strict=True)
    ]
    return [marked[0], replace(marked[1], notes=(said,))]


def plan_of(saved: "SavedGeneration") -> Plan:
    """What a saved generation was asked for. Raises MiCrowError where it cannot be read."""
    settings = JsonObject.of(saved.settings, f"the settings of generation {saved.id}")
    stack = tuple(Intervention.from_json(one) for one in settings.array("interventions", []))
    SEED.check(saved.seed, "the seed")
    asked = SamplingSettings(
        settings.integer("max_new_tokens", 64),
        settings.number("temperature", 1.0),
        saved.seed,
        Constraint(settings.number("plausible", None), settings.number("kl_budget", None)),
        settings.integer("samples", 1, least=1, most=MOST_SAMPLES),
    )
    sae_id = next(iter(saved.sae_ids), None)
    alone = ModelAlone(saved.model_id, saved.revision) if sae_id is None else None
    return Plan(saved.prompt, (stack,), (), asked, sae_id, alone=alone, chat=chat_of(saved))


def chat_of(saved: "SavedGeneration") -> Branches | None:
    """The conversation that a saved generation answered; None for a prompt. Raises UserError."""
    messages = saved.settings.get("messages")
    return None if messages is None else Branches.from_json(messages)


def sample_number(saved: "SavedGeneration") -> int:
    """Which of the samples that were written together was saved."""
    number = saved.settings.get("sample", 0)
    return number if isinstance(number, int) and 0 <= number < MOST_SAMPLES else 0


def same_request(one: Plan, other: Plan) -> bool:
    """Whether two plans ask for the same texts."""
    return (
        one.prompt,
        one.chat,
        one.settings,
        one.sae_id,
        one.alone,
        *map(stack_text, one.stacks),
    ) == (
        other.prompt,
        other.chat,
        other.settings,
        other.sae_id,
        other.alone,
        *map(stack_text, other.stacks),
    )


def saved_words(saved: "SavedGeneration") -> str:
    """Over a text that was not written just now."""
    return f"saved {_when(saved)}"


def _asked(one: "SavedGeneration") -> str:
    return f"chat: {one.prompt}" if "messages" in one.settings else one.prompt


def _changes(one: "SavedGeneration") -> str:
    rows: Any = one.settings.get("interventions")
    try:
        return stack_text([Intervention.from_json(row) for row in rows or ()])
    except Exception:  # whatever is wrong with it, the row says so
        return "cannot be read"


def _settings(one: "SavedGeneration") -> dict[str, Any]:
    left_out = ("interventions", "messages")
    plain = {name: value for name, value in one.settings.items() if name not in left_out}
    return {"seed": one.seed, "model": one.model_id, "device": one.device, **plain}


def _when(one: "SavedGeneration") -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created))
