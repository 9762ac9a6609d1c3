"""An embedding model in the place of the chat model that scores explanations.

It puts texts into an order, by the cosine between a text and the explanation; its
score is the AUROC of that order (Paulo, Mallen, Juang and Belrose 2024, 2410.13928, section 3.2.5,
"embedding"), .5 by chance. It asks nothing of anybody. Torch-free.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mi_crow.mechanistic.explain.explanations.scores import LEAST, Score
from mi_crow.mechanistic.explain.explanations.texts import Passage
from mi_crow.mechanistic.features.meaning.static_embeddings import (
    StaticEmbeddings,
    open_embeddings,
)
from mi_crow.mechanistic.steering.measure.aims.detectors import auroc_error


@dataclass(frozen=True)
class EmbeddingJudge:
    """Scores explanations by how near unseen texts are to them."""

    name: str  # of the folder, and which vectors were in it
    embeddings: StaticEmbeddings

    @classmethod
    def open(cls, folder: Path) -> "EmbeddingJudge":
        """Raises UserError for a folder that is none of model2vec, CorruptDataError."""
        found = open_embeddings(folder.absolute())
        digest = hashlib.sha256(np.ascontiguousarray(found.vectors).tobytes())
        return cls(f"{folder.resolve().name}@{digest.hexdigest()[:8]}", found)

    def score(
        self, explanation: str, firing: Sequence[Passage], silent: Sequence[Passage]
    ) -> Score | None:
        """The AUROC of nearness, with half of its interval of 95 percent; None with too few texts,
        and for an explanation of which no word is known."""
        if min(len(firing), len(silent)) < LEAST:
            return None
        texts = [explanation, *(one.text for one in (*firing, *silent))]
        about, *others = self.embeddings.embedded(texts)
        if not about.any():
            return None
        cosines = np.stack(others) @ about
        inside, outside = cosines[: len(firing)], cosines[len(firing) :]
        above = inside[:, None] - outside
        auroc = float(((above > 0) + 0.5 * (above == 0)).mean())
        # One pair more of each order keeps the interval of a perfect score from being zero.
        smooth = (auroc * above.size + 1) / (above.size + 2)
        return Score(auroc, 1.96 * auroc_error(smooth, len(firing), len(silent)))
