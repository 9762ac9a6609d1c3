"""The published face of one Hugging Face causal language model: loading it, and its parts."""

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.activations import Activations
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.generation import Generation, Sampling, generate
from mi_crow.language_model.inference import Inference
from mi_crow.language_model.loading import load_model, torch_device
from mi_crow.store.local import LocalStore


class Attachable(Protocol):
    """As much of an SAE as a model needs."""

    @property
    def n_inputs(self) -> int: ...

    def attach(self, lm: "LanguageModel", layer_signature: str | int | None = None) -> Any:
        """Attaches to the layer; returns an object with `detach`."""
        ...


class LanguageModel(CausalModel):
    """A causal language model with its tokenizer.

    `layers` lists and hooks them, `inference` runs texts, `activations` saves them, `generate`
    writes text.
    """

    _attached: Any = None

    @cached_property
    def inference(self) -> Inference:
        """Running texts through the model."""
        return Inference(self)

    @cached_property
    def activations(self) -> Activations:
        """Saving activations on texts."""
        return Activations(self)

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
    def from_spec(
        cls, spec: ModelSpec, store: LocalStore | None = None, split_over: int = 1
    ) -> "LanguageModel":
        """Loads the model of a specification, which so many processes may split (see
        `placement.tensor_parallel`)."""
        loaded = load_model(spec, split_over)
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
        """Wraps a causal LM and a tokenizer that are already loaded."""
        where = torch_device(device) if device is not None else model.device
        model.eval().to(where)
        name = getattr(model.config, "name_or_path", "") or type(model).__name__
        return cls(model, tokenizer, model_id=name, device=where, store=store)

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
        plausible: float | None = None,
        kl_budget: float | None = None,
    ) -> Generation:
        """Continues `prompt` by sampling: `n` continuations as one batch.

        `bos` is that of `tokenize`. `temperature` 0 takes the likeliest token. `on_token` gets the
        first continuation's text piece by piece, never half a character; `should_stop` is called
        between tokens. While controllers act, `plausible` keeps to tokens that the plain model
        gives at least that share of its likeliest one's probability, and `kl_budget` to a
        distribution that is at most this many nats from the plain one (see `constraints`).
        """
        sampling = Sampling(
            max_new_tokens, temperature, top_p, seed, n, use_cache, bos, plausible, kl_budget
        )
        if with_controllers:
            return generate(self, prompt, sampling, on_token, should_stop)
        with self.plain():
            return generate(self, prompt, sampling, on_token, should_stop)

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
            raise UserError("an SAE is already attached", hint="call detach_sae() first")
        self._attached = sae.attach(self, layer_signature)
        return self._attached

    def detach_sae(self) -> None:
        """Detaches the attached SAE, if there is one."""
        if self._attached is not None:
            self._attached.detach()
            self._attached = None
