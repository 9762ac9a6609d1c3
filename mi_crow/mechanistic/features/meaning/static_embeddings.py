"""Words of like meaning from a model2vec folder: one vector a token, no network runs. Torch-free.

The folder has `model.safetensors` with `embeddings` [tokens, width] and `tokenizer.json`, as
model2vec writes it (Minish Lab, https://github.com/MinishLab/model2vec); a word's vector is the
mean of its tokens' (times `weights` [tokens], where the file has them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.paths import expanded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NEAR = 0.5  # least cosine
_MOST = 12  # words
_LEAST_LETTERS = 3


@dataclass(frozen=True)
class StaticEmbeddings:
    """One vector of length 1 a token, and the words that are tokens."""

    vectors: np.ndarray  # float32 [tokens, width]
    weights: np.ndarray  # float32 [tokens]
    words: dict[str, int]
    tokenizer: "Tokenizer"

    def near(self, words: Sequence[str], text: str) -> dict[str, float]:
        """Words near the text's, each with the cosine as its weight."""
        (mean,) = self.embedded([" ".join(words) or text])
        if not mean.any():
            return {}
        cosines = self.vectors @ mean
        found: dict[str, float] = {}
        for place in np.argsort(-cosines)[: 8 * _MOST].tolist():
            word = self._word_of.get(place)
            if cosines[place] < _NEAR or len(found) == _MOST:
                break
            if word is not None:
                found[word] = float(cosines[place])
        return found

    def embedded(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts, of length 1, or 0 where no token is known: float32 [texts, width].

        As model2vec has them: the mean of the vectors of all tokens but unknown ones.
        """
        unknown = self.tokenizer.token_to_id(getattr(self.tokenizer.model, "unk_token", "") or "")
        found = np.zeros((len(texts), self.vectors.shape[1]), dtype=np.float32)
        for row, text in zip(found, texts, strict=True):
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            ids = [one for one in ids if one < len(self.vectors) and one != unknown]
            row += (self.vectors[ids] * self.weights[ids, None]).sum(0)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    @cached_property
    def _word_of(self) -> dict[int, str]:
        return {place: word for word, place in self.words.items()}


def users_embeddings() -> StaticEmbeddings | None:
    """Those of the folder that the user's settings name; None where they name none. Raises what
    `open_embeddings` does."""
    from mi_crow.store.settings import UserSettings

    folder = UserSettings.load().text("semantic.model")
    return open_embeddings(expanded(folder)) if folder else None


@cache
def open_embeddings(folder: Path) -> StaticEmbeddings:
    """Reads a model2vec folder. Raises UserError for one that is none, CorruptDataError."""
    weights, vocabulary = folder / "model.safetensors", folder / "tokenizer.json"
    for path in (weights, vocabulary):
        if not path.is_file():
            raise UserError(
                f"{str(folder)!r} is not a model2vec folder: it has no {path.name}",
                hint="semantic.model is a folder with model.safetensors and tokenizer.json",
            )
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    try:
        tensors = load_file(weights)
        tokenizer = Tokenizer.from_file(str(vocabulary))
        vectors = tensors["embeddings"].astype(np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError("embeddings are not a finite matrix")
        sizes = np.linalg.norm(vectors, axis=1)
        scale = tensors.get("weights", np.ones(len(vectors))).astype(np.float32) * sizes
    except Exception as error:  # the tokenizers library raises Exception itself
        raise CorruptDataError(f"{str(folder)!r} cannot be read ({error})") from error
    vocab = tokenizer.get_vocab()
    words = {
        word: place
        for token, place in vocab.items()
        if place < len(vectors)
        and len(word := token.lstrip("▁Ġ").casefold()) >= _LEAST_LETTERS
        and word.isalpha()
    }
    return StaticEmbeddings(vectors / np.maximum(sizes, 1e-12)[:, None], scale, words, tokenizer)
