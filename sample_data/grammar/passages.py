"""Passages: which sentences follow each other, and how long, mixed and off topic they get."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sample_data.grammar.engine import Context, WordLists, expand, finish
from sample_data.grammar.kitchen_and_garden import COOKING, GARDENING, WEATHER, WILDLIFE
from sample_data.grammar.office_and_clinic import FINANCE, LAW, MEDICINE, SOFTWARE
from sample_data.grammar.registers import REGISTERS
from sample_data.grammar.shared import SHARED
from sample_data.grammar.sky_sea_and_stone import ASTRONOMY, GEOLOGY, RAILWAYS, SAILING
from sample_data.grammar.stage_and_bench import CARPENTRY, CHESS, MUSIC, THEATRE

TOPICS: dict[str, WordLists] = {
    "astronomy": ASTRONOMY,
    "carpentry": CARPENTRY,
    "chess": CHESS,
    "cooking": COOKING,
    "finance": FINANCE,
    "gardening": GARDENING,
    "geology": GEOLOGY,
    "law": LAW,
    "medicine": MEDICINE,
    "music": MUSIC,
    "railways": RAILWAYS,
    "sailing": SAILING,
    "software": SOFTWARE,
    "theatre": THEATRE,
    "weather": WEATHER,
    "wildlife": WILDLIFE,
}

# A topic borrows a sentence from a neighbour now and then, so that their words overlap.
NEIGHBOURS = {
    "astronomy": "weather", "weather": "sailing", "sailing": "railways", "railways": "geology",
    "geology": "astronomy", "carpentry": "theatre", "theatre": "music", "music": "carpentry",
    "cooking": "gardening", "gardening": "wildlife", "wildlife": "cooking", "medicine": "law",
    "law": "finance", "finance": "software", "software": "chess", "chess": "medicine",
}  # fmt: skip

# Words and marks; each takes 1 to 1.3 tokens, so these keep a passage within 50-120 tokens.
SHORTEST, LONGEST = 54, 90
TURNING, OPENING, CLOSING, NEUTRAL, BORROWED = 0.05, 0.6, 0.4, 0.24, 0.02


@dataclass(frozen=True)
class Passage:
    """One text with the topic it is (mostly) about and the register it is written in."""

    text: str
    label: str
    register: str


def passages(number: int, seed: int | str) -> Iterator[Passage]:
    """`number` passages; each 16 in a row hold every topic once, so all are equally frequent."""
    rng = random.Random(seed)
    labels: list[str] = []
    for _ in range(number):
        labels = labels or rng.sample(sorted(TOPICS), len(TOPICS))
        yield passage(rng, labels.pop())


def passage(rng: random.Random, label: str) -> Passage:
    """One passage on `label` in a random register, drawn again until its length fits."""
    register = rng.choice(sorted(REGISTERS))
    while True:
        text = _draft(rng, label, register)
        if SHORTEST <= length(text) <= LONGEST:
            return Passage(text, label, register)


def length(text: str) -> int:
    """Words and punctuation marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def _draft(rng: random.Random, label: str, register: str) -> str:
    context = _context(rng, label, register)
    target = rng.randint(SHORTEST + 2, LONGEST - 10)
    turns_at = rng.uniform(0.5, 0.65) * target if rng.random() < TURNING else LONGEST
    sentences: list[str] = []
    if rng.random() < OPENING:
        sentences.append(finish(expand(context, "{open}")))
    neutral_last = bool(sentences)
    while (size := length(" ".join(sentences))) < target:
        if size >= turns_at:
            sentences.append(finish(expand(context, "{turning}")))
            other = rng.choice([topic for topic in sorted(TOPICS) if topic != label])
            context, turns_at, neutral_last = _context(rng, other, register, context), LONGEST, True
        neutral_last = not neutral_last and rng.random() < NEUTRAL
        sentences.append(_sentence(context, label, register, neutral_last))
    if rng.random() < CLOSING:
        sentences.append(finish(expand(context, "{close}")))
    return " ".join(sentences)


def _sentence(context: Context, label: str, register: str, neutral: bool) -> str:
    if neutral:
        return finish(expand(context, "{aside}"))
    if context.rng.random() < BORROWED:
        context = _context(context.rng, NEIGHBOURS[label], register, context)
    return finish(expand(context, "{line}"))


def _context(
    rng: random.Random, label: str, register: str, before: Context | None = None
) -> Context:
    """A context for a topic; names and places are kept from `before`, its focus words are not."""
    context = Context(rng, TOPICS[label], {**SHARED, **REGISTERS[register]})
    if before:
        kept = {name: text for name, text in before.remembered.items() if name not in {"N", "R"}}
        context.remembered.update(kept)
        context.used = before.used
    return context
