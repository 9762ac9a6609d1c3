"""Texts to padded token ids, with special tokens identified by id."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mi_crow.errors import UserError


@dataclass(frozen=True)
class Encoding:
    """Token ids of some texts, padded on the right."""

    input_ids: Tensor  # [batch, length] int64
    attention_mask: Tensor  # [batch, length] int64, 1 for tokens, 0 for padding
    special: Tensor  # [batch, length] bool, True for special tokens and padding

    def to(self, device: torch.device) -> "Encoding":
        return Encoding(
            self.input_ids.to(device, non_blocking=True),
            self.attention_mask.to(device, non_blocking=True),
            self.special.to(device, non_blocking=True),
        )

    def as_inputs(self) -> dict[str, Tensor]:
        """What a transformers model takes."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokenizer's special tokens (BOS, EOS, padding, turn marks, reserved ones, ...).

    Id 0 can be an ordinary token, and a model need not have a BOS.
    """
    named = {int(i) for i in tokenizer.all_special_ids if i is not None}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(named | {int(i) for i, token in added.items() if token.special})


class Frame(NamedTuple):
    """The special tokens before and after a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def missing(self, ids: "Sequence[int] | np.ndarray") -> "Frame":
        """What a text of these ids lacks: one that already begins with BOS, from a chat template or
        a person, does not get a second one, and the same at its end."""
        if not len(ids):
            return self
        before, after = self.before, self.after
        for size in range(min(len(before), len(ids)), 0, -1):
            if tuple(ids[:size]) == before[-size:]:
                before = before[:-size]
                break
        for size in range(min(len(after), len(ids)), 0, -1):
            if tuple(ids[-size:]) == after[:size]:
                after = after[size:]
                break
        return Frame(before, after)

    def around(self, ids: Sequence[int], context_length: int | None = None) -> list[int]:
        """A text's ids with the special tokens they lack, cut to the context but for end tokens."""
        lacks = self.missing(ids)
        whole = [*lacks.before, *ids, *lacks.after]
        if context_length is None or len(whole) <= context_length:
            return whole
        room = max(context_length - len(lacks.before) - len(self.after), 0)
        return [*lacks.before, *ids[:room], *self.after][:context_length]


def frame_of(tokenizer: Any, bos: str = "auto") -> Frame:
    """The special tokens around a text: as the tokenizer adds them (`auto`), with a BOS token in
    front (`yes`) or without (`no`).

    Raises UserError for `yes` if the tokenizer has no start token.
    """
    before, after = added_ids(tokenizer)
    if bos == "yes":
        start = start_id(tokenizer)
        if start is None:
            raise UserError(
                "the tokenizer has no BOS token to put in front of a text", hint="leave out --bos"
            )
        return Frame(before if start in before else (start, *before), after)
    if bos == "no":
        before = tuple(one for one in before if one != start_id(tokenizer))
    return Frame(before, after)


def start_id(tokenizer: Any) -> int | None:
    """The BOS token's id, else the end-of-text token's, as in TransformerLens; None without
    either."""
    for found in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    return None


def added_ids(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and after a text."""
    plain = list(tokenizer("a b", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a b")["input_ids"])
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()


def tokenize(
    tokenizer: Any, texts: Sequence[str], context_length: int | None = None, bos: str = "auto"
) -> list[list[int]]:
    """Token ids of each text with the special tokens of `frame_of`, cut to the context."""
    frame = frame_of(tokenizer, bos)
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        return_attention_mask=False,
        verbose=False,  # long texts are cut here
    )
    return [frame.around(ids, context_length) for ids in encoded["input_ids"]]


def pad(rows: Sequence[Sequence[int]], tokenizer: Any, fill: int = 0) -> Encoding:
    """Pads token ids on the right with `fill`, any id that the model's embedding has: padding is
    masked and counts as special whatever its id."""
    length = max(1, max(map(len, rows)))
    input_ids = torch.full((len(rows), length), fill, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for number, ids in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        mask[number, : len(ids)] = 1
    return Encoding(input_ids, mask, special_mask(input_ids, special_ids(tokenizer)) | (mask == 0))


def special_mask(input_ids: Tensor, special: Collection[int]) -> Tensor:
    """True for the ids in `special`; same shape as `input_ids`."""
    ids = torch.tensor(sorted(special), dtype=torch.int64, device=input_ids.device)
    return torch.isin(input_ids, ids)


def encode_batch(
    tokenizer: Any, texts: Sequence[str], context_length: int | None = None
) -> Encoding:
    """Tokenizes and pads `texts`; `LanguageModel.encode` uses the model's own padding."""
    return pad(tokenize(tokenizer, texts, context_length), tokenizer)


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over the vocabulary, its ids and the special tokens: 16 hex digits."""
    digest = sha256()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        digest.update(f"{index}\t{token}\n".encode("utf-8", "surrogatepass"))
    digest.update(repr(sorted(special_ids(tokenizer))).encode())
    return digest.hexdigest()[:16]
