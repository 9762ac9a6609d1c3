"""One Hugging Face causal language model: loading it, its parts, and whether controllers act."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.activations import Activations
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.generation import Generation, Settings, generate
from mi_crow.language_model.inference import Inference
from mi_crow.language_model.layers import Layers
from mi_crow.language_model.loading import load_model, torch_device
from mi_crow.language_model.tokenize import Encoding, pad, tokenize, tokenizer_hash
from mi_crow.store.local import LocalStore


class Attachable(Protocol):
    """An SAE, as far as a model has to know it."""

    @property
    def n_inputs(self) -> int: ...

    def attach(self, lm: "LanguageModel", layer_signature: str | int | None = None) -> Any:
        """Hangs on the layer and gives what can be detached again."""
        ...


@dataclass(frozen=True)
class ForwardContext:
    """What the tokens of the running forward pass are; steering reads it inside hooks."""

    input_ids: Tensor  # [batch, length]: the tokens of this pass alone
    attention_mask: Tensor  # [batch, past + length]
    special: Tensor  # [batch, length] bool: special tokens and padding
    position: int  # tokens in the cache before this pass
    prompt_length: int | None  # tokens of the prompt while generating, else None


class LanguageModel:
    """A causal language model with its tokenizer.

    `layers` lists and hooks them, `inference` runs texts, `activations` saves them, `generate`
    writes text.
    """

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
        self.controllers_enabled = True
        self.forward_context: ForwardContext | None = None
        self.layers = Layers(self)
        self.inference = Inference(self)
        self.activations = Activations(self)
        self._attached: Any = None

    @classmethod
    def from_huggingface(
        cls,
        id_or_path: str | os.PathLike[str],
        store: LocalStore | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        gguf_file: str | None = None,
        revision: str | None = None,
        offline: bool = False,
        trust_remote_code: bool = False,
    ) -> "LanguageModel":
        """Loads a hub id, a folder, a .gguf file, or `sample`. Raises UserError in one sentence."""
        spec = ModelSpec(
            os.fspath(id_or_path),
            gguf_file=gguf_file,
            revision=revision,
            dtype=dtype or "auto",
            device=str(device or "auto"),
            offline=offline,
            trust_remote_code=trust_remote_code,
        )
        return cls.from_spec(spec, store)

    @classmethod
    def from_spec(cls, spec: ModelSpec, store: LocalStore | None = None) -> "LanguageModel":
        """Loads what a specification says."""
        loaded = load_model(spec)
        return cls(
            loaded.model,
            loaded.tokenizer,
            model_id=loaded.model_id,
            device=loaded.device,
            revision=loaded.revision,
            store=store,
        )

    @classmethod
    def from_local_torch(
        cls,
        model: Any,
        tokenizer: Any,
        store: LocalStore | None = None,
        device: str | torch.device | None = None,
    ) -> "LanguageModel":
        """Wraps a causal LM and a tokenizer that are loaded already."""
        where = torch_device(device) if device is not None else model.device
        model.eval().to(where)
        name = getattr(model.config, "name_or_path", "") or type(model).__name__
        return cls(model, tokenizer, model_id=name, device=where, store=store)

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
        """What batches are padded with: the tokenizer's padding id where the embedding has it. One
        that was added to the tokenizer alone would read beyond it."""
        found = self.tokenizer.pad_token_id
        rows = self.embedding_rows
        return int(found) if found is not None and rows is not None and found < rows else 0

    @cached_property
    def embedding_rows(self) -> int | None:
        """How many token ids the model knows; None where its embedding is not a usual one."""
        try:
            return int(self.model.get_input_embeddings().weight.shape[0])
        except (AttributeError, NotImplementedError, TypeError):
            return None

    @cached_property
    def context(self) -> int | None:
        """How many tokens the model can read at once; None where it does not say."""
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
        """Raises UserError for a token that the model has no embedding for, as one is that was
        added to the tokenizer alone."""
        rows = self.embedding_rows
        if rows is None or not len(ids) or max(ids) < rows:
            return
        token = self.tokenizer.convert_ids_to_tokens(int(max(ids)))
        raise UserError(
            f"a text holds the token {token!r} (id {max(ids)}), and the model's embedding has "
            f"{rows} rows",
            hint="take it out of the text, or resize the model's embedding and save it",
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

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        with_controllers: bool = True,
        n: int = 1,
        use_cache: bool = True,
        bos: str = "auto",
    ) -> Generation:
        """Continues `prompt` by sampling: `n` continuations as one batch.

        `bos` is that of `tokenize`. `temperature` 0 takes the likeliest token. `on_token` gets the
        first continuation's text piece by piece, never half a character; `should_stop` is asked
        between two tokens.
        """
        settings = Settings(max_new_tokens, temperature, top_p, seed, n, use_cache, bos)
        if with_controllers:
            return generate(self, prompt, settings, on_token, should_stop)
        with self.plain():
            return generate(self, prompt, settings, on_token, should_stop)

    def attach_sae(self, sae: Attachable, layer_signature: str | int) -> Any:
        """Attaches an SAE at a layer: its concepts track texts and steer from there.

        Raises UserError when its width is not the layer's, or another SAE is attached.
        """
        width = self.layers.width(layer_signature)
        if sae.n_inputs != width:
            raise UserError(
                f"the SAE reads {sae.n_inputs} inputs, layer {layer_signature!r} has {width}",
                hint="attach it to the layer it was trained on",
            )
        if self._attached is not None:
            raise UserError("an SAE is attached already", hint="call detach_sae() first")
        self._attached = sae.attach(self, layer_signature)
        return self._attached

    def detach_sae(self) -> None:
        """Takes the attached SAE off, if there is one."""
        if self._attached is not None:
            self._attached.detach()
            self._attached = None
