"""Texts to padded token ids, with special tokens told apart by id."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from mi_crow.clean_text import clean_text


@dataclass(frozen=True)
class Encoding:
    """Token ids of some texts, padded on the right."""

    input_ids: Tensor  # [batch, length] int64
    attention_mask: Tensor  # [batch, length] int64, 1 where a token stands
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


def tokenize(
    tokenizer: Any, texts: Sequence[str], context_length: int | None = None
) -> list[list[int]]:
    """Token ids of each text, special tokens as the tokenizer adds them, cut to the context."""
    encoded = tokenizer(
        [clean_text(text) for text in texts],
        padding=False,
        truncation=context_length is not None,
        max_length=context_length,
        return_attention_mask=False,
    )
    return [list(ids) for ids in encoded["input_ids"]]


def pad(rows: Sequence[Sequence[int]], tokenizer: Any) -> Encoding:
    """Pads token ids on the right. Works for tokenizers without a padding token."""
    length = max(1, max(map(len, rows)))
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    input_ids = torch.full((len(rows), length), fill, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for number, ids in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        mask[number, : len(ids)] = 1
    return Encoding(input_ids, mask, special_mask(input_ids, special_ids(tokenizer)) | (mask == 0))


def special_mask(input_ids: Tensor, special: Collection[int]) -> Tensor:
    """True where one of the `special` ids stands, same shape as `input_ids`."""
    ids = torch.tensor(sorted(special), dtype=torch.int64, device=input_ids.device)
    return torch.isin(input_ids, ids)


def encode_batch(
    tokenizer: Any, texts: Sequence[str], context_length: int | None = None
) -> Encoding:
    """Tokenizes and pads `texts`."""
    return pad(tokenize(tokenizer, texts, context_length), tokenizer)


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over the vocabulary, its ids and the special tokens: 16 hex digits."""
    digest = sha256()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        digest.update(f"{index}\t{token}\n".encode("utf-8", "surrogatepass"))
    digest.update(repr(sorted(special_ids(tokenizer))).encode())
    return digest.hexdigest()[:16]
