"""The texts of one plan as they come: what each side shows of them, with heat and figures; pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from mi_crow.mechanistic.steering.chat.branches import Message
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.preferences.key_words import key
from tui.screens.steer.heading import passage_title
from tui.screens.steer.writing import PassageDone, Plan, Sample, SideText
from tui.text import number
from tui.widgets.stream_text import Passage
from tui.widgets.token_heat import peak_index, quoted

_STEERED = "steered"
ANSWERS = "assistant"  # who says what is written in a chat
_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass
class Board:
    """What was written under one plan, and which sample of it is shown."""

    plan: Plan
    done: list[PassageDone] = field(default_factory=list)
    sample: int = 0
    started: int = 0  # passages
    saved: bool = False  # opened, not written now
    _arrived: dict[tuple[int, str, int], str] = field(default_factory=dict)

    def arrive(self, place: int, side: str, sample: int, text: str) -> None:
        """More text of one sample."""
        at = (place, side, sample)
        self._arrived[at] = self._arrived.get(at, "") + text

    def turn(self, steps: int) -> bool:
        """Shows the next or an earlier sample; False where there is none."""
        wanted = self.sample + steps
        if not 0 <= wanted < self.plan.settings.samples:
            return False
        self.sample = wanted
        return True

    def rename_sae(self, old: str, new: str) -> None:
        """Goes on under the new id of an SAE."""
        self.plan = self.plan.of_renamed(old, new)
        for passage in self.done:
            passage.rename_sae(old, new)

    @property
    def baselines(self) -> tuple[SideText, ...]:
        """Whole baselines in which the targets were read, for a plan that has the same ones. Not
        saved ones: another machine or model may have written them."""
        if self.saved:
            return ()
        whole = next((one for one in self.done if one.place == 0 and not one.stopped), None)
        found = tuple(one.baseline for one in whole.samples) if whole is not None else ()
        return found if all(one.tokens or not one.text for one in found) else ()

    def passages(self, side: str, target: str | None) -> list[Passage]:
        """What a side shows, the heat being that of `target` where it was read."""
        target = self._target(target)
        started = max(self.started, 1) if self.plan.chat is not None else self.started
        places = range(started if side == _STEERED else min(started, 1))
        return [self._passage(place, side, target) for place in places]

    def _passage(self, place: int, side: str, target: str | None) -> Passage:
        done = next((one for one in self.done if one.place == place), None)
        prompt, title, turns = self.plan.prompt, "", ()
        if (chat := self.plan.chat) is not None:
            prompt = f"{ANSWERS}: "
            turns = turns_of(chat.baseline if side != _STEERED else chat.steered)
        if self.plan.titles and side == _STEERED:
            title = passage_title(self.plan, done) if done else self.plan.titles[place]
        if done is None or self.sample >= len(done.samples):
            text = self._arrived.get((place, side, self.sample), "")
            if side != _STEERED and self.sample < len(self.plan.kept):
                text = self.plan.kept[self.sample].text
            return Passage(prompt, text, title, turns=turns)
        own = done.samples[self.sample]
        pair = Sample(self._baseline(own), own.steered)
        unit = "token"
        if not any(one.tokens for one in _sides(pair)) and not done.stopped:
            pair, unit = _in_words(pair), "word"  # a saved one, of which the texts are kept alone
        shown = pair.side(side)
        if not shown.tokens:
            return Passage(prompt, shown.text, title, turns=turns)
        at = _column(shown.targets, target)
        heat = shown.acts[at] if at is not None and at < len(shown.acts) else ()
        parts = parting(pair)
        return Passage(
            prompt,
            shown.text,
            title,
            tokens=shown.tokens,
            heat=heat,
            top=self._top(target),
            parts=parts,
            notes=tuple(
                filter(
                    None,
                    (
                        _peak(at, shown, heat),
                        _push(at, shown),
                        _figures(side, pair, parts, unit),
                        self._unread(side, shown),
                    ),
                )
            ),
            turns=turns,
        )

    def _unread(self, side: str, shown: SideText) -> str:
        """How a saved text comes to what was not kept with it."""
        if not self.saved or side != _STEERED or shown.acts or not self.plan.targets:
            return ""
        return f"{key('steer.run')} generates it again, with the activations of its tokens"

    def _target(self, wanted: str | None) -> str | None:
        """What the heat is of: `wanted`, or the first target where not all texts have that."""
        texts = [text for done in self.done for one in done.samples for text in _sides(one)]
        read = [text.targets for text in texts if text.targets]
        common = [one for one in (read[-1] if read else ()) if all(one in some for some in read)]
        return wanted if wanted in common else next(iter(common), None)

    def _baseline(self, own: Sample) -> SideText:
        """The baseline of the shown sample: passages of a sweep share the first one's."""
        if own.baseline.text or self.sample >= len(self.baselines):
            return own.baseline
        return self.baselines[self.sample]

    def _top(self, target: str | None) -> float:
        """The greatest activation of the target on any text, so that all share one scale."""
        found = [0.0]
        for done in self.done:
            for one in done.samples:
                for text in _sides(one):
                    at = _column(text.targets, target)
                    found += text.acts[at] if at is not None and at < len(text.acts) else ()
        return max(found)


def turns_of(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Who said what, for a passage."""
    return tuple((one["role"], one["content"]) for one in messages)


def target_read(one: Intervention | None, sae_id: str | None) -> str | None:
    """How the session calls what is read of an intervention on texts: of a group its first feature;
    None where it does not say which, as for a tag."""
    if one is None or one.aim.kind in ("layer", "tag"):
        return None
    if one.features:
        feature = one.features[0][0]
        return f"feature:{feature}" if one.sae in (None, sae_id) else f"feature:{one.sae}/{feature}"
    return one.aim.text


def _sides(one: Sample) -> tuple[SideText, SideText]:
    return one.baseline, one.steered


def _column(targets: Sequence[str], target: str | None) -> int | None:
    """Which of the targets that were read in a text is shown."""
    return targets.index(target) if target in targets else None


def parting(pair: Sample) -> int | None:
    """The token from which on the steered text is another than the baseline; None where they are
    the same, or where one of them is missing."""
    one, other = pair.baseline.tokens, pair.steered.tokens
    if not one or not other or one == other:
        return None
    alike = takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)


def _peak(at: int | None, text: SideText, heat: Sequence[float]) -> str:
    """`#3 peaks at 8.12 on “sails”`; the heat in words."""
    if at is None:
        return ""
    kind, _, name = text.targets[at].partition(":")
    if kind != "feature":
        name = f"{kind} {name}"
    elif name.isdecimal():
        name = f"#{name}"
    place = peak_index(heat)
    if place is None:
        return f"{name} does not fire" if kind == "feature" else f"{name} is nowhere above 0"
    return f"{name} peaks at {number(heat[place], 2)} on {quoted(text.tokens[place])}"


def _push(at: int | None, text: SideText) -> str:
    """`feedback 1.00 → 0.12 · promoted tokens log p -9.1 → -6.2`: what the target's intervention
    did over the text."""
    words = []
    if at is not None and at < len(text.factor) and (factor := text.factor[at]):
        words.append(f"feedback {number(factor[0], 2)} → {number(factor[-1], 2)}")
    if at is not None and at < len(text.promoted):
        plain, steered = text.promoted[at]
        words.append(f"promoted tokens log p {number(plain, 1)} → {number(steered, 1)}")
    return " · ".join(words)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, each with the space before it; together they are the text."""
    return tuple(_WORD.findall(text))


def _in_words(pair: Sample) -> Sample:
    """Two texts with their words for tokens."""
    baseline, steered = (replace(one, tokens=words_of(one.text)) for one in _sides(pair))
    return Sample(baseline, steered)


def _figures(side: str, pair: Sample, parts: int | None, unit: str) -> str:
    """`KL 0.82 · perplexity 21.4, × 1.31 · distinct-2 0.97 · parts at token 6`."""
    own, words = pair.side(side), []
    if side == _STEERED and own.kl is not None:
        words.append(f"KL {number(own.kl, 2)}")
    if own.perplexity is not None:
        text = f"perplexity {number(own.perplexity, 1)}"
        plain = pair.baseline.perplexity
        if side == _STEERED and plain:
            text += f", × {number(own.perplexity / plain, 2)}"
        words.append(text)
    if own.distinct_2 is not None:
        words.append(f"distinct-2 {number(own.distinct_2, 2)}")
    if side == _STEERED and pair.baseline.tokens:
        same = pair.baseline.tokens == own.tokens
        words.append("the same text" if same else f"parts at {unit} {(parts or 0) + 1}")
    return " · ".join(words)
