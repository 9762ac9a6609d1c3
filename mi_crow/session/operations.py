"""What the model session can be asked: load, inspect, generate, layers, hooks, layer_stats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.errors import UserError, nearest
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.tokenize import encode_batch
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.run import (
    feature_maxima,
    inspect_loaded,
    load_attached,
    steer_loaded,
)
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae import SparseAutoencoder

Emit = Callable[[dict[str, Any]], None]
Stopped = Callable[[], bool]

_STREAM_S = 0.12  # streamed text is sent in batches, some eight a second


@dataclass(frozen=True)
class Attached:
    """An SAE with its model."""

    sae_id: str
    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    layer: str  # short name of the SAE's hook point


class TextStream:
    """Joins pieces of text so that few events carry them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._side, self._text, self._sent = "", "", 0.0

    def push(self, side: str, piece: str) -> None:
        if side != self._side:
            self.flush()
            self._side = side
        self._text += piece
        if perf_counter() - self._sent >= _STREAM_S:
            self.flush()

    def flush(self) -> None:
        if self._text:
            self._emit({"event": "token", "side": self._side, "text": self._text})
        self._text, self._sent = "", perf_counter()


class Operations:
    """The state of the session and what it does on request."""

    def __init__(self, workspace: Workspace, device: str) -> None:
        self._workspace, self._device = workspace, device
        self._attached: Attached | None = None
        self._table: dict[str, Callable[..., dict[str, Any]]] = {
            "ping": self._ping,
            "load": self._load,
            "inspect": self._inspect,
            "generate": self._generate,
            "layers": self._layers,
            "hooks": self._hooks,
            "layer_stats": self._layer_stats,
        }

    def run(self, op: str, params: dict[str, Any], emit: Emit, stopped: Stopped) -> dict[str, Any]:
        """The result of one request. Raises UserError for an unknown op."""
        if op not in self._table:
            raise UserError(
                f"the session knows no {op!r}", hint=f"it knows {nearest(op, self._table, 9)}"
            )
        if op == "generate":
            return self._generate(emit=emit, stopped=stopped, **params)
        return self._table[op](**params)

    def _ping(self) -> dict[str, Any]:
        return {"loaded": self._attached.sae_id if self._attached else None}

    def _load(self, sae_id: str, device: str | None = None) -> dict[str, Any]:
        if self._attached is None or self._attached.sae_id != sae_id or device is not None:
            self._attached = None  # one model at a time: the old one's memory first
            lm, sae, layer = load_attached(self._workspace, sae_id, device or self._device)
            self._attached = Attached(sae_id, lm, sae, layer)
        lm = self._attached.lm
        return {
            "sae_id": sae_id,
            "model_id": lm.model_id,
            "layer": lm.layers.resolve(self._attached.layer).name,
            "device": str(lm.device),
            "n_layers": len(lm.layers.blocks()),
        }

    def _inspect(self, text: str, top: int = 20) -> dict[str, Any]:
        now = self._loaded()
        return inspect_loaded(now.lm, now.sae, now.layer, text, top)

    def _generate(
        self,
        prompt: str,
        emit: Emit,
        stopped: Stopped,
        interventions: Sequence[dict[str, Any]] = (),
        max_new_tokens: int = 64,
        temperature: float = 0.8,
        top_p: float = 1.0,
        seed: int = 0,
        baseline: bool = True,
    ) -> dict[str, Any]:
        now = self._loaded()
        stack = [Intervention.from_json(one) for one in interventions]
        stream = TextStream(emit)
        result = steer_loaded(
            now.lm,
            now.sae,
            now.layer,
            prompt,
            stack,
            feature_maxima(self._workspace, now.sae_id, stack),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            baseline=baseline,
            on_token=stream.push,
            should_stop=stopped,
        )
        stream.flush()
        return result

    def _layers(self) -> dict[str, Any]:
        return {"layers": self._loaded().lm.layers.tree()}

    def _hooks(self) -> dict[str, Any]:
        now = self._loaded()
        name = now.lm.layers.resolve(now.layer).name
        rows = [{"layer": name, "hook": f"SAE {now.sae_id}", "kind": type(now.sae).__name__}]
        rows += [
            {"layer": one.layer, "hook": one.id, "kind": type(one.hook).__name__}
            for one in now.lm.layers.get_hooks()
        ]
        return {"hooks": rows}

    @torch.inference_mode()
    def _layer_stats(self, layer: str, text: str) -> dict[str, Any]:
        lm = self._loaded().lm
        if not text.strip():
            raise UserError("the text is empty", hint="write a few words")
        context = getattr(lm.model.config, "max_position_embeddings", None)
        encoding = encode_batch(lm.tokenizer, [text], context).to(lm.device)
        point = lm.layers.resolve(layer)
        x = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point].float()
        rows = x.reshape(-1, x.shape[-1])
        norms = rows.norm(dim=1)
        return {
            "layer": point.name,
            "shape": list(x.shape),
            "tokens": rows.shape[0],
            "mean": float(rows.mean()),
            "std": float(rows.std()),
            "mean_norm": float(norms.mean()),
            "median_norm": float(norms.median()),
            "max_norm": float(norms.max()),
        }

    def _loaded(self) -> Attached:
        if self._attached is None:
            raise UserError("no SAE is loaded", hint="open one first")
        return self._attached
