"""The titles over the texts: how they were made, which the stack may no longer say."""

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from mi_crow.mechanistic.steering.chat.branches import Branches, transcript
from tui.screens.steer.stack import change_text, stack_text, target_text
from tui.screens.steer.writing import PassageDone, Plan
from tui.text import number, printable

_LEAST = 12  # cells of what made a text


def plan_words(plan: Plan, open_sae: str | None) -> dict[str, str]:
    """What made each side's text, with the SAE where another one is open by now."""
    spaced = plan.chat is None and plan.prompt.endswith(" ")
    steered = _sweep(plan) if plan.titles else _acts(plan) or "no interventions"
    if within := plan.settings.constraint.words:
        steered = f"{within} · {steered}"  # first: the list above says the stack, but not this
    if plan.sae_id and plan.sae_id != open_sae:
        steered = f"{steered} · SAE {plan.sae_id}"
    if plan.alone is not None:
        steered = f"{steered} · {plan.alone.model} without an SAE"
    return {
        "baseline": "the prompt ends with a space" if spaced else "no interventions",
        "steered": steered,
    }


def _acts(plan: Plan) -> str:
    return stack_text(plan.stacks[0], plan.sae_id)


def _sweep(plan: Plan) -> str:
    """`#42 at +0 max, +0.4 max, with #7 ablate`."""
    place = _swept(plan)
    first = plan.stacks[0]
    others = stack_text([*first[:place], *first[place + 1 :]], plan.sae_id)
    text = f"{target_text(first[place])} at {', '.join(plan.titles)}"
    return f"{text}, with {others}" if others else text


def _swept(plan: Plan) -> int:
    """The place in the stack that the titles are about."""
    places = range(len(plan.stacks[0]))
    differs = [n for n in places if len({stack[n] for stack in plan.stacks}) > 1]
    titled = [n for n in places if change_text(plan.stacks[0][n]) == plan.titles[0]]
    return (differs or titled or [0])[0]


def title_content(side: str, words: str, figures: str, width: int = 0) -> Content:
    """One line over a text: `Steered  #42 +0.8 max   23.1 tokens/s`. Where it is wider than `width`
    the words make room for the figures."""
    shown = Content(printable(words))
    room = width - len(side) - 2 - (3 + cell_len(figures) if figures else 0)
    if width and shown.cell_length > room:
        shown = shown.truncate(max(room, _LEAST), ellipsis=True)
    return Content.assemble(
        (side.title(), "bold $primary"),
        (f"  {shown.plain}", "$muted"),
        (f"   {figures}" if figures else "", "$accent"),
    )


class SideTitle(Static):
    """That line, as long as it is wide."""

    _said: tuple[str, str, str] | None = None

    def say(self, side: str, words: str, figures: str) -> None:
        self._said = side, words, figures
        self._fit()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        if self._said is not None:
            self.update(title_content(*self._said, self.content_size.width))


def passage_title(plan: Plan, done: PassageDone) -> str:
    """The title of one text of a sweep, with its own figure: `+0.4 max · KL 0.41`."""
    if not plan.titles:
        return ""
    parts = (plan.titles[done.place], shortened_text(done), kl_text(done))
    return " · ".join(part for part in parts if part)


def samples_text(plan: Plan, sample: int) -> str:
    """Which of several samples is shown: `sample 2 of 8`."""
    total = plan.settings.samples
    return f"sample {sample + 1} of {total}" if total > 1 else ""


def reading(plan: Plan, done: Sequence[PassageDone], sample: int = 0) -> str:
    """The figures of all samples: `sample 2 of 8 · 23.1 tokens/s · KL 0.41`; those of a sweep are
    over each text."""
    if plan.titles or not done:
        return samples_text(plan, sample)
    speed = done[-1].metrics.get("tokens_s")
    rate = f"{number(speed, 1)} tokens/s" if isinstance(speed, int | float) else ""
    parts = (samples_text(plan, sample), shortened_text(done[-1]), rate, kl_text(done[-1]))
    return " · ".join(part for part in parts if part)


def prompt_text(done: Sequence[PassageDone]) -> str:
    """How the prompt was read: `6 tokens, BOS added`. Of a chat, how the steered side was."""
    if not done or not done[0].prompt_tokens:
        return ""
    bos = ", BOS added" if done[0].bos_added else ""
    tokens = done[0].prompt_tokens
    return f"{tokens:,} token{'' if tokens == 1 else 's'}{bos}"


def kl_text(done: PassageDone) -> str:
    kl = done.metrics.get("kl")
    return f"KL {number(kl, 2)}" if isinstance(kl, int | float) else ""


def shortened_text(done: PassageDone) -> str:
    """That the model's context had no room for all the tokens that were asked for."""
    if done.shortened_to is None:
        return ""
    return f"context full after {done.shortened_to} tokens"


def copied_text(plan: Plan, baseline: str, steered: str) -> str:
    """Prompt and both texts with what made them, for the clipboard."""
    settings = plan.settings
    how = f"seed {settings.seed}, temperature {settings.temperature:g}"
    made = f"SAE {plan.sae_id}, {how}" if plan.sae_id else how
    words = plan_words(plan, plan.sae_id)["steered"]
    asked = f"prompt\n{plan.prompt}" if plan.chat is None else heard_text(plan.chat)
    return f"{asked}\n\nbaseline\n{baseline}\n\nsteered: {words} ({made})\n{steered}\n"


def heard_text(chat: Branches) -> str:
    """What both sides of a conversation have heard, for people."""
    if chat.alike:
        return f"chat\n{transcript(chat.steered)}"
    sides = (("baseline", chat.baseline), ("steered", chat.steered))
    return "\n\n".join(f"chat, {name}\n{transcript(said)}" for name, said in sides)
