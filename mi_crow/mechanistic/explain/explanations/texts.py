"""The texts that an explanation is made from, and others that it is scored on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from mi_crow.mechanistic.features.queries import Example, FeatureStore
from mi_crow.visible import visible

SHOWN = 16  # examples that the explainer sees
TESTED = 10  # texts of each kind that a score is over
AROUND = 16  # tokens of a text either side of the firing
_EXAMPLES = 12  # of each band that are looked at
OPEN, CLOSE = "<<", ">>"


@dataclass(frozen=True)
class Passage:
    """Some tokens of a document, and the feature's activation on each."""

    document: int
    first: int  # position of the first token in its document
    tokens: tuple[str, ...]
    acts: tuple[float, ...]

    @property
    def text(self) -> str:
        return visible("".join(self.tokens)).strip()

    def marked(self, which: Sequence[bool]) -> str:
        """The text with some tokens marked."""
        parts = []
        for token, on in zip(self.tokens, which, strict=True):
            shown = visible(token)
            bare = shown.strip()
            # The space in front of a word stays outside.
            parts.append(shown.replace(bare, f"{OPEN}{bare}{CLOSE}", 1) if on and bare else shown)
        return "".join(parts).strip()

    @property
    def firing(self) -> tuple[bool, ...]:
        """Where it fires at least half as strongly as at its strongest."""
        most = max(self.acts, default=0.0)
        return tuple(act > 0 and act >= most / 2 for act in self.acts)


@dataclass(frozen=True)
class Material:
    """What is known of a feature, parted by document."""

    feature: int
    shown: tuple[Passage, ...]  # to the explainer: from the strongest to the weakest band
    held_out: tuple[Passage, ...]  # from documents of which the explainer saw nothing
    promoted: tuple[str, ...]  # tokens
    hint: str  # the name proposed without a language model; may be empty


def material_of(store: FeatureStore, feature: int, seed: int) -> Material:
    """Its examples in quantiles, half of the documents for the explainer."""
    bands = store.all_examples(feature, _EXAMPLES)
    rounds = zip_longest(*(bands[number] for number in sorted(bands)))
    examples = [one for one in chain.from_iterable(rounds) if one is not None]
    seen, held_out, used = [], [], set()
    for one in examples:
        if one.document in used:
            continue
        used.add(one.document)
        (held_out if is_held_out(one.document, seed) else seen).append(_passage(one))
    detail = store.detail(feature)
    shown = sorted(seen[:SHOWN], key=lambda one: -max(one.acts))
    hint = detail.proposal.name if detail.proposal is not None else ""
    promoted = tuple(visible(token).strip() for token, _ in detail.promoted[:10])
    return Material(feature, tuple(shown), tuple(held_out[:TESTED]), promoted, hint)


def silent_passages(store: FeatureStore, material: Material, seed: int) -> list[Passage]:
    """Texts in which the feature is not known to fire: half where a feature fires that co-activates
    with it or is near it, half where any other does; none from a document of its own."""
    rng = np.random.default_rng([seed, material.feature])
    found_in = (
        "SELECT document FROM idx.examples WHERE feature = $1 UNION "
        "SELECT document FROM idx.document_features WHERE feature = $1"
    )
    own = set(store.connection.columns(found_in, [material.feature])["document"].tolist())
    detail = store.detail(material.feature)
    near = [one.feature for one in detail.coactivations] + [
        one.feature for one in detail.neighbours
    ]
    found: list[Passage] = []
    for features, wanted in ((near, TESTED // 2), (_others(store, rng), TESTED)):
        for other in features:
            if len(found) >= wanted:
                break
            for example in store.examples(other, 0, 3):
                if example.document not in own:
                    own.add(example.document)
                    one = _passage(example)
                    silent = (0.0,) * len(one.tokens)
                    found.append(Passage(one.document, one.first, one.tokens, silent))
                    break
    return found[:TESTED]


def _others(store: FeatureStore, rng: np.random.Generator) -> list[int]:
    firing = np.flatnonzero(store.columns().fires > 0)
    return rng.permutation(firing)[: 8 * TESTED].tolist()


def _passage(example: Example) -> Passage:
    """The tokens around the firing: short texts, so that a feature which is known to be silent
    elsewhere is hardly hidden in them."""
    at = example.position - example.window_start
    first, last = max(at - AROUND, 0), at + AROUND + 1
    tokens, acts = tuple(example.tokens[first:last]), tuple(example.acts[first:last])
    return Passage(example.document, example.window_start + first, tokens, acts)


def is_held_out(document: int, seed: int) -> bool:
    """Whether the texts of a document are for scores, and not for the explainer."""
    return hashlib.sha256(f"{seed} {document}".encode()).digest()[0] % 2 == 1
