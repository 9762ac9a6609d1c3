"""Data sets that somebody has tokenized: their ids read with the model's tokenizer."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from mi_crow.datasets.texts import Texts, TokenText

_LOOKED = 20  # documents that are tokenized again to see whether the ids are this tokenizer's


def ids_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Makes the text of token ids, special tokens written out.

    The function raises ValueError for an id that the tokenizer does not have.
    """
    size = len(tokenizer)

    def decode(ids: Sequence[int]) -> str:
        wrong = next((one for one in ids if not 0 <= one < size), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is not one of the {size:,} ids of the model's tokenizer")
        return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    return decode


def assumption(tokenizer: Any, texts: Texts) -> str:
    """What is assumed of a data set of token ids, and what speaks for it: of its first texts, how
    many give the same ids when the model's tokenizer reads them. Empty for one of texts."""
    if not texts.chat:  # those of ids are
        return ""
    looked = [text for text, _ in islice(texts.rows(), _LOOKED) if isinstance(text, TokenText)]
    if not looked:
        return ""
    same = sum(
        list(tokenizer(str(text), add_special_tokens=False)["input_ids"]) == text.ids.tolist()
        for text in looked
    )
    return (
        "the data set holds token ids, taken to be of this model's tokenizer: "
        f"{same} of the first {len(looked)} documents give the same ids when it reads their texts"
    )
