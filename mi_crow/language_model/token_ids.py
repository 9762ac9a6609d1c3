"""Data sets of token ids: reading them with the model's tokenizer."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from mi_crow.datasets.texts import Texts, TokenText

_CHECKED = 20  # documents tokenized again to see whether the ids are this tokenizer's


def ids_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """A function from token ids to their text, special tokens written out.

    It raises ValueError for an id that the tokenizer does not have.
    """
    size = len(tokenizer)

    def decode(ids: Sequence[int]) -> str:
        wrong = next((one for one in ids if not 0 <= one < size), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is not one of the {size:,} ids of the model's tokenizer")
        return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    return decode


def tokenizer_check(tokenizer: Any, texts: Texts) -> str:
    """A sentence on a data set of token ids: how many of its first documents the model's tokenizer
    gives the same ids. Empty for a data set of texts."""
    if not texts.chat:  # those of ids are
        return ""
    checked = [text for text, _ in islice(texts.rows(), _CHECKED) if isinstance(text, TokenText)]
    if not checked:
        return ""
    same = sum(
        list(tokenizer(str(text), add_special_tokens=False)["input_ids"]) == text.ids.tolist()
        for text in checked
    )
    return (
        "the data set contains token ids, assumed to be of this model's tokenizer, which gives "
        f"{same} of the first {len(checked)} documents the same ids"
    )
