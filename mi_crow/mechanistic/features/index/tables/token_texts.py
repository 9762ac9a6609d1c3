"""The text of each token of many documents, from the tokenizer's offsets where it gives them."""

from collections.abc import Sequence
from typing import Any

from mi_crow.language_model.detokenize import shown_tokens
from mi_crow.language_model.tokenize import special_ids

_MAX_ADDED = 4  # special tokens before a text


def document_token_texts(
    tokenizer: Any, texts: Sequence[str], token_ids: Sequence[Sequence[int]]
) -> list[list[str]]:
    """The text of each token of each document; special tokens appear by name.

    `token_ids` are the tokens of `texts`, perhaps truncated. Tokenizing again with offsets is a
    hundred times as fast as decoding; where it gives other ids the tokens are decoded.
    """
    special = special_ids(tokenizer)
    encoded: list[tuple[Sequence[int], Sequence[tuple[int, int]]]]
    if getattr(tokenizer, "is_fast", False) and len(texts):
        found = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        encoded = list(zip(found["input_ids"], found["offset_mapping"], strict=True))
    else:
        encoded = [((), ())] * len(texts)
    result = []
    for text, ids, (whole, offsets) in zip(texts, token_ids, encoded, strict=True):
        before = _added_before(ids, whole, special)
        if before is None:
            result.append(shown_tokens(tokenizer, ids, parts=False))
        else:
            places = [*((0, 0),) * before, *offsets, *((0, 0),) * len(ids)]
            result.append(_cut(tokenizer, text, ids, places, special))
    return result


def _added_before(ids: Sequence[int], whole: Sequence[int], special: frozenset[int]) -> int | None:
    """How many special tokens were put before a text whose own are `whole`, perhaps cut off, to
    give `ids`; None where it was not that."""
    for before in range(min(_MAX_ADDED, len(ids)) + 1):
        own = list(ids[before : before + len(whole)])
        rest = ids[before + len(whole) :]
        # A text that was cut may have its end token where its own would go on.
        while own and own != list(whole[: len(own)]) and own[-1] in special:
            rest = [own.pop(), *rest]
        if own == list(whole[: len(own)]) and all(one in special for one in rest):
            return before
        if before < len(ids) and ids[before] not in special:
            return None
    return None


def _cut(
    tokenizer: Any,
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    special: frozenset[int],
) -> list[str]:
    """Cuts `text` where tokens end. What lies between two tokens goes to the second one; a
    character over several tokens goes to the first of them."""
    pieces, cursor = [], 0
    for token_id, (_, end) in zip(ids, offsets, strict=False):
        if end > cursor:
            pieces.append(text[cursor:end])
            cursor = end
        else:
            is_named = token_id in special
            pieces.append(str(tokenizer.convert_ids_to_tokens(token_id)) if is_named else "")
    return pieces


def vocabulary_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of single tokens, with the leading space that SentencePiece drops."""
    known = len(tokenizer)
    inside = [token_id if token_id < known else None for token_id in ids]
    texts = tokenizer.batch_decode(
        [[] if token_id is None else [token_id] for token_id in inside],
        clean_up_tokenization_spaces=False,
    )
    names = [
        None if token_id is None else tokenizer.convert_ids_to_tokens(token_id)
        for token_id in inside
    ]
    result = []
    for token_id, text, name in zip(ids, texts, names, strict=True):
        if name is None:  # the embedding is padded beyond the tokenizer's vocabulary
            result.append(f"<{token_id}>")
        elif str(name).startswith("\u2581") and not text.startswith(" "):
            result.append(f" {text}")
        elif "\ufffd" in text:  # part of a character
            result.append(shown_tokens(tokenizer, [token_id])[0])
        else:
            result.append(text or str(name))
    return result
