"""The indexed texts that steering is measured with: openings, labelled texts, held-out tokens.

Torch-free.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.mechanistic.features.queries import FeatureStore

MOST_DOCUMENTS = 8000
_OPENING_WORDS = 3
_STRONG, _WEAK = 0.5, 0.1  # of the feature's maximum: texts that are about it, texts that are not
_FEWEST = 5  # texts to learn a topic from


@dataclass(frozen=True)
class Document:
    """One indexed document."""

    number: int
    text: str
    label: str | None
    heldout: bool


Sides = tuple[list[Document], list[Document]]
"""Texts on a topic, and as a contrast others."""


class IndexedTexts:
    """A sample of the texts in an SAE's index, the same one every time."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    @cached_property
    def documents(self) -> list[Document]:
        rows = self._store.connection.rows(
            "SELECT document, text, label, split FROM idx.documents "
            f"ORDER BY hash(document), document LIMIT {MOST_DOCUMENTS}"
        )
        return [
            Document(number, text, label, split == "heldout") for number, text, label, split in rows
        ]

    @cached_property
    def labels(self) -> list[str]:
        return sorted({one.label for one in self.documents if one.label is not None})

    def openings(self, count: int) -> list[str]:
        """The commonest beginnings of texts, which say little of what follows."""
        counts: Counter[str] = Counter()
        for one in self.documents:
            words = one.text.split()
            if len(words) > _OPENING_WORDS:
                counts[" ".join(words[:_OPENING_WORDS])] += 1
        found = sorted(counts, key=lambda words: (-counts[words], words))[:count]
        if not found:
            raise UserError("the indexed texts are too short", hint="give --prompts FILE")
        return found

    def check_label(self, label: str) -> None:
        """Raises NotFoundError for a label that no indexed text has."""
        if label not in self.labels:
            hint = f"there is {nearest(label, self.labels)}" if self.labels else "it has no labels"
            raise NotFoundError(f"label {label!r} is not in the index", hint=hint)

    def labelled(self, label: str, seed: int) -> Sides:
        """The texts with a label, and those with another or none. Raises NotFoundError for an
        unknown label."""
        self.check_label(label)
        own = [one for one in self.documents if one.label == label]
        others = [one for one in self.documents if one.label != label]
        random.Random(seed).shuffle(others)
        return own, others

    def about(self, feature: int, seed: int) -> Sides:
        """Texts in which a feature is strong, and as a contrast others in which it is not.

        Raises UserError where it is strong in too few texts.
        """
        (row,) = self._store.rows([feature])
        found = self._store.connection.rows(
            "SELECT document, max_act FROM idx.document_features WHERE feature = ? "
            "ORDER BY max_act DESC, document LIMIT 2000",
            [feature],
        )
        strong = [number for number, act in found if act >= _STRONG * row.max_act]
        # A lone spike must not leave one text to learn from.
        strong = strong if len(strong) >= 4 * _FEWEST else [number for number, _ in found[:64]]
        if len(strong) < _FEWEST:
            raise UserError(
                f"feature {feature} is strong in {len(strong)} indexed texts: too few to learn "
                "what they are about",
                hint="judge by --label or --regex, or index more texts",
            )
        active = {number for number, act in found if act >= _WEAK * row.max_act}
        others = [one for one in self.documents if one.number not in active]
        random.Random(seed).shuffle(others)
        return self._numbered(strong), others

    def _numbered(self, numbers: Sequence[int]) -> list[Document]:
        rows = self._store.connection.rows(
            "SELECT document, text, label, split FROM idx.documents "
            "WHERE document IN (SELECT unnest(?::INTEGER[])) ORDER BY document",
            [list(numbers)],
        )
        return [
            Document(number, text, label, split == "heldout") for number, text, label, split in rows
        ]

    def heldout_tokens(self, count: int) -> list[list[int]]:
        """The token ids of some held-out texts, special tokens included."""
        rows = self._store.connection.rows(
            "SELECT token_ids FROM idx.stored_documents WHERE split = 'heldout' "
            "AND len(token_ids) > 1 ORDER BY hash(document), document LIMIT ?",
            [count],
        )
        return [list(ids) for (ids,) in rows]
