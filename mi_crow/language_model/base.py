"""A causal language model with its tokenizer and layers, before anything is done with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.layers import Layers
from mi_crow.language_model.tokenize import Encoding, pad, tokenize, tokenizer_hash
from mi_crow.store.local import LocalStore


class CausalModel:
    """What inference, generation and capture work on."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        model_id: str,
        device: torch.device,
        revision: str | None = None,
        store: LocalStore | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.model_id = model_id
        self.device = device
        self.revision = revision
        self.store = store
        self.controllers_enabled: bool = True
        self.forward_context: ForwardContext | None = None
        self.prompt_roles: tuple[str, ...] | None = None  # of each token of a chat's prompt
        self.layers: Layers = Layers(self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model computes in."""
        return self.model.dtype

    @cached_property
    def tokenizer_hash(self) -> str:
        """Changes when the vocabulary or the special tokens do."""
        return tokenizer_hash(self.tokenizer)

    @cached_property
    def padding_id(self) -> int:
        """What batches are padded with: the tokenizer's padding id if the embedding has a row for
        it, which one that was only added to the tokenizer has not; else 0."""
        found = self.tokenizer.pad_token_id
        rows = self.embedding_rows
        return int(found) if found is not None and rows is not None and found < rows else 0

    @cached_property
    def embedding_rows(self) -> int | None:
        """How many token ids the model knows; None if its embedding is not of the usual kind."""
        try:
            return int(self.model.get_input_embeddings().weight.shape[0])
        except (AttributeError, NotImplementedError, TypeError):
            return None

    @cached_property
    def context(self) -> int | None:
        """How many tokens the model can read at once; None if its configuration does not say."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    def tokenize(
        self, texts: Sequence[str], context_length: int | None = None, bos: str = "auto"
    ) -> list[list[int]]:
        """Token ids of each text (see `tokenize.tokenize`). Raises UserError for a token that the
        model has no embedding for."""
        rows = tokenize(self.tokenizer, texts, context_length, bos)
        for ids in rows:
            self.check_ids(ids)
        return rows

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises UserError for a token that the model has no embedding for, such as one that was
        only added to the tokenizer."""
        rows = self.embedding_rows
        if rows is None or not len(ids) or max(ids) < rows:
            return
        token = self.tokenizer.convert_ids_to_tokens(int(max(ids)))
        raise UserError(
            f"a text contains the token {token!r} (id {max(ids)}), but the model's embedding has "
            f"{rows} rows",
            hint="remove it from the text, or resize the model's embedding and save the model",
        )

    def encode(
        self, texts: Sequence[str], context_length: int | None = None, bos: str = "auto"
    ) -> Encoding:
        """Texts as one padded batch on the model's device; raises as `tokenize` does."""
        return self.padded(self.tokenize(texts, context_length, bos))

    def padded(self, rows: Sequence[Sequence[int]]) -> Encoding:
        """Token ids as one padded batch on the model's device."""
        return pad(rows, self.tokenizer, self.padding_id).to(self.device)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Inside the block no controller acts."""
        before = self.controllers_enabled
        self.controllers_enabled = False
        try:
            yield
        finally:
            self.controllers_enabled = before

    @contextmanager
    def running(self, context: ForwardContext) -> Iterator[None]:
        """Inside the block hooks see `context` as the running forward pass."""
        before = self.forward_context
        self.forward_context = context
        try:
            yield
        finally:
            self.forward_context = before

    @contextmanager
    def spoken(self, roles: Sequence[str] | None) -> Iterator[None]:
        """Inside the block the prompt is a chat, and `roles` says whose each of its tokens is (see
        `chat.token_roles`); what is generated is the assistant's."""
        before = self.prompt_roles
        self.prompt_roles = None if roles is None else tuple(roles)
        try:
            yield
        finally:
            self.prompt_roles = before
