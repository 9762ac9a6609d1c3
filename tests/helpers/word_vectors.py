"""A folder of word vectors as model2vec writes it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace


def model2vec_folder(folder: Path, near: Sequence[Sequence[str]], width: int = 8) -> Path:
    """A folder as model2vec writes it, in which the words of each group lie together."""
    words = [word for group in near for word in group]
    vectors = np.zeros((len(words) + 1, width), dtype=np.float32)
    for number, group in enumerate(near):
        for word in group:
            vectors[1 + words.index(word), number] = 1
            vectors[1 + words.index(word), -1] = 0.1 * words.index(word) / len(words)
    tokenizer = Tokenizer(
        WordLevel({"[UNK]": 0, **{w: 1 + n for n, w in enumerate(words)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    return folder
