"""The operations of the model session: what it holds, and who answers which request."""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mi_crow.causes import forget_locals, out_of_memory
from mi_crow.errors import CancelledError, MachineError, UserError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.weights_hash import WeightsFile
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.known import KnownFeatures
from mi_crow.session import layers
from mi_crow.session.causes import EXPLAINING, Causes
from mi_crow.session.vectors import OPERATIONS as OF_VECTORS
from mi_crow.store.settings import SPREAD
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.decoding.steps import Prefixes
    from mi_crow.mechanistic.steering.attach import AttachedSae
    from mi_crow.mechanistic.steering.loading import LoadedModel, LoadedSae
    from mi_crow.mechanistic.steering.parts import LoadedParts

Emit = Callable[[dict[str, Any]], None]
Stopped = Callable[[], bool]

_OPEN = "open an SAE of it first"
_STREAM_S = 0.12  # streamed text is sent in about eight batches per second


class TextBatcher:
    """Joins the pieces of each text that is being written, so that fewer events are sent."""

    def __init__(self, emit: Emit, clock: Callable[[], float] = perf_counter) -> None:
        self._emit, self._clock = emit, clock
        self._texts: dict[tuple[str, int], str] = {}
        self._sent = -_STREAM_S

    def push(self, side: str, sample: int, piece: str) -> None:
        self._texts[side, sample] = self._texts.get((side, sample), "") + piece
        if self._clock() - self._sent >= _STREAM_S:
            self.flush()

    def flush(self) -> None:
        """Sends what is pending."""
        for (side, sample), text in self._texts.items():
            self._emit({"event": "token", "side": side, "sample": sample, "text": text})
            self._sent = self._clock()
        self._texts.clear()


def _telling(emit: Emit, stopped: Stopped) -> Callable[[int, int], None]:
    """Sends how far something is, and ends it when it was interrupted."""

    def report(done: int, total: int) -> None:
        if stopped():
            raise CancelledError("interrupted", resumable=False)
        emit({"event": "progress", "done": done, "total": total})

    return report


@dataclass(frozen=True)
class _Loaded:
    """The model and SAE in memory, or the model alone."""

    spec: ModelSpec
    loaded: "LoadedSae | LoadedModel"
    attached: "AttachedSae | None"


class Operations:
    """The state of the session: at most one model, with one SAE attached or none."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._held: _Loaded | None = None
        self._kept: Prefixes | None = None
        self._parts: LoadedParts | None = None  # what stacks on the loaded model have used
        self._table: dict[str, Callable[..., dict[str, Any]]] = {
            "ping": self._ping,
            "load": self._load,
            "layers": self._layers,
            "layer_stats": self._layer_stats,
            "hooks": self._hooks,
            "profile": self._profile,
            "watch": self._watch,
            **{name: partial(one, workspace) for name, one in OF_VECTORS.items()},
            **{name: partial(self._explain, name) for name in EXPLAINING},
        }
        self._known = KnownFeatures(workspace)

    def run(self, op: str, params: dict[str, Any], emit: Emit, stopped: Stopped) -> dict[str, Any]:
        """The result of one request; `emit` sends events on the way.

        Raises UserError for an unknown op, CancelledError when it was interrupted while waiting.
        """
        if op == "generate":
            return self._generate(emit, stopped, **params)
        if op == "contrast":
            return self._explain(op, report=_telling(emit, stopped), **params)
        if op not in self._table:
            known = ", ".join(sorted([*self._table, "contrast", "generate"]))
            raise UserError(f"the model session has no operation {op!r}", hint=f"it has {known}")
        if stopped() and op != "load":
            raise CancelledError("interrupted", resumable=False)
        return self._table[op](**params)

    def _ping(self) -> dict[str, Any]:
        held = self._held
        return {"pid": os.getpid(), "sae_id": held.loaded.sae_id if held else None}

    def _load(
        self,
        sae_id: str | None = None,
        device: str = "auto",
        model: str | None = None,
        revision: str | None = None,
    ) -> dict[str, Any]:
        """Loads an SAE with its model, or `model` alone. Raises UserError, NotFoundError."""
        from mi_crow.mechanistic.steering.attach import attach_sae
        from mi_crow.mechanistic.steering.loading import join, open_sae
        from mi_crow.mechanistic.steering.parts import LoadedParts

        self._kept = None
        if sae_id is None:
            return self._load_alone(model, revision, device)
        weights = WeightsFile.of(self._workspace.sae_dir(sae_id))
        sae, spec = open_sae(self._workspace, sae_id, device)
        loaded = join(sae_id, self._model(spec), sae, weights)
        # Nothing is attached of an SAE over several layers: stacks find its layers themselves.
        attached = None if loaded.several else attach_sae(loaded.lm, sae, loaded.layer)
        self._held = _Loaded(spec, loaded, attached)
        self._parts = LoadedParts(self._workspace, loaded.lm)
        return {
            "sae_id": sae_id,
            "model_id": loaded.lm.model_id,
            "revision": loaded.lm.revision,
            "layer": loaded.place,
            "device": str(loaded.lm.device),
            "n_layers": len(loaded.lm.layers.blocks()),
            "n_features": sae.n_latents,
        }

    def _load_alone(self, model: str | None, revision: str | None, device: str) -> dict[str, Any]:
        from mi_crow.language_model.loading import torch_device
        from mi_crow.mechanistic.steering.loading import LoadedModel
        from mi_crow.mechanistic.steering.parts import LoadedParts

        if not model:
            raise UserError("neither an SAE nor a model was named")
        spec = ModelSpec(
            model,
            revision=revision,
            device=device if device == SPREAD else str(torch_device(device)),
        )
        lm = self._model(spec)
        self._held = _Loaded(spec, LoadedModel(lm), None)
        self._parts = LoadedParts(self._workspace, lm)
        return {
            "sae_id": None,
            "model_id": lm.model_id,
            "revision": lm.revision,
            "layer": "",
            "device": str(lm.device),
            "n_layers": len(lm.layers.blocks()),
            "n_features": 0,
        }

    def _model(self, spec: ModelSpec) -> "LanguageModel":
        """The model of `spec`: the loaded one if it is the same, without its SAE."""
        from mi_crow.language_model import LanguageModel

        held, self._held = self._held, None
        if held is not None and held.spec == spec:
            if held.attached is not None:
                held.attached.detach()
            return held.loaded.lm
        # Two models at once may not fit the device. A model goes with what refers to it, and refers
        # to itself by its hooks.
        self._parts = None
        if held is not None:
            del held
            gc.collect()
        return LanguageModel.from_spec(spec)

    def _explain(self, what: str, sae_id: str | None = None, **asked: Any) -> dict[str, Any]:
        """An operation of `Causes`."""
        loaded = self._ready(sae_id)
        assert self._parts is not None  # it is made with what is loaded
        return getattr(Causes(self._known, self._parts), what)(loaded, **asked)

    def _generate(
        self,
        emit: Emit,
        stopped: Stopped,
        prompt: str = "",
        interventions: Sequence[dict[str, Any]] = (),
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        baseline: bool = True,
        bos: str = "auto",
        sae_id: str | None = None,
        plausible: float | None = None,
        kl_budget: float | None = None,
        n: int = 1,
        messages: Any = None,
    ) -> dict[str, Any]:
        from mi_crow.mechanistic.steering.chat.answering import answer
        from mi_crow.mechanistic.steering.chat.branches import Branches
        from mi_crow.mechanistic.steering.run import steer_loaded

        stream = TextBatcher(emit)
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "bos": bos,
            "plausible": plausible,
            "kl_budget": kl_budget,
            "on_token": stream.push,
            "should_stop": stopped,
            "n": n,
            "prefixes": self._prefixes(),
            "loaded_parts": self._parts,
            "baseline": baseline,
        }
        try:
            loaded = self._running(sae_id)
            stack = [Intervention.from_json(one) for one in interventions]
            if messages is not None:
                branches = Branches.from_json(messages)
                return answer(self._workspace, loaded, branches, stack, **options)
            return steer_loaded(self._workspace, loaded, prompt, stack, **options)
        except Exception as error:
            if not out_of_memory(error):
                raise
            forget_locals(error)
            self._free_memory()
            raise MachineError(
                "the device is out of memory",
                hint="ask for fewer samples or new tokens, or shorten the prompt",
            ) from error
        finally:
            stream.flush()

    def _prefixes(self) -> "Prefixes":
        """What is kept of the last prompt; of the loaded SAE only."""
        from mi_crow.language_model.decoding.steps import Prefixes

        if self._kept is None:
            self._kept = Prefixes()
        return self._kept

    def _free_memory(self) -> None:
        """Lets go of what only saves time."""
        import torch

        self._kept = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _layers(self) -> dict[str, Any]:
        return {"layers": self._running().lm.layers.tree()}

    def _hooks(self) -> dict[str, Any]:
        return {
            "hooks": [
                {
                    "id": one.id,
                    "layer": one.layer,
                    "hook": type(one.hook).__name__,
                    "type": "controller" if one.hook.is_controller else "detector",
                    "enabled": one.hook.enabled,
                }
                for one in self._running().lm.layers.get_hooks()
            ]
        }

    def _profile(self, text: str) -> dict[str, Any]:
        return layers.profile(self._running().lm, text)

    def _watch(self, text: str, hooks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return layers.watch(self._running().lm, text, hooks)

    def _layer_stats(self, layer: str, text: str) -> dict[str, Any]:
        from mi_crow.mechanistic.steering.inspection import layer_statistics

        return layer_statistics(self._running().lm, layer, text)

    def _ready(self, sae_id: str | None = None) -> "LoadedSae":
        """The loaded SAE and model. Raises UserError when the SAE is not `sae_id`, if given."""
        loaded = self._running(sae_id)
        if loaded.sae_id is None:
            raise UserError(f"model {loaded.lm.model_id!r} is loaded without an SAE", hint=_OPEN)
        return loaded

    def _running(self, sae_id: str | None = None) -> "LoadedSae | LoadedModel":
        """The loaded model, with its SAE or alone. Raises UserError when the SAE is not `sae_id`,
        if given."""
        if self._held is None:
            raise UserError("no SAE is loaded", hint="load one first")
        loaded = self._held.loaded
        if sae_id not in (None, loaded.sae_id):
            held = "no SAE" if loaded.sae_id is None else f"SAE {loaded.sae_id!r}"
            raise UserError(f"{held} is loaded, not {sae_id!r}", hint="try again")
        return loaded
