"""Output scores: which features change what the model says (Arad et al. 2025, "SAEs Are Good for
Steering - If You Select the Right Features", 2505.20063).

A feature is amplified on neutral prompts, at every layer that it writes to, each by the same share
of its norm, and the next token looked at: with p the greatest probability among the tokens that its
decoder row promotes, r the rank of that token and V the size of the vocabulary, the score is
(1 - r / V) p, the mean over the prompts.
"""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mi_crow.hooks import Controller
from mi_crow.language_model.context import ForwardContext
from mi_crow.mechanistic.features.beside.output_scores import read_scores, write_scores
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.mechanistic.steering.measure.config import ScoresConfig
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.parts import point_written
from mi_crow.mechanistic.steering.where import ordinary_tokens
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

_SAVE_S = 20.0
_SHOWN = 20


def score_outputs(
    workspace: Workspace,
    config: ScoresConfig,
    progress: Progress | None = None,
    loaded: LoadedSae | None = None,
) -> dict[str, Any]:
    """Scores every feature, writes `output_scores.safetensors` beside the index, which the column
    `output` shows, and returns a summary with the features that score highest.

    What a stopped job has scored is not scored again. Raises UserError, NotFoundError.
    """
    progress = progress or NullProgress()
    indexed = Indexed.open(workspace, config.sae_id)
    tokens = indexed.promoted()
    prompts = list(config.prompts or indexed.texts.openings(2))
    loaded = loaded or load_for_work(workspace, config.sae_id, config.device)
    total = len(tokens)
    settings = {"strength": config.strength, "prompts": prompts}
    weights = indexed.store.meta().other.get("weights", "")
    facts = {"weights": weights, "settings": json.dumps(settings)}
    folder = workspace.sae_dir(config.sae_id)
    scores, done = _held(folder, facts, total)
    started = saved = time.monotonic()
    scorer = _Scorer(loaded, prompts, config.strength)
    with explain_shortage(f"scoring on {loaded.lm.device}", "lower --batch-size"):
        while done < total:
            if progress.should_stop():
                write_scores(folder, scores, facts | {"done": str(done)})
                raise_if_stopped(progress)
            chosen = np.arange(done, min(done + config.batch_size, total))
            scores[chosen] = scorer(chosen, tokens[chosen])
            done = int(chosen[-1]) + 1
            progress.update(done, total, "feature")
            if time.monotonic() - saved > _SAVE_S:
                write_scores(folder, scores, facts | {"done": str(done)})
                progress.checkpoint(f"feature-{done}")
                saved = time.monotonic()
    write_scores(folder, scores, facts | {"done": str(done)})
    known = scores[np.isfinite(scores)]
    order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")[:_SHOWN]
    return {
        "sae_id": config.sae_id,
        "features": total,
        "scored": len(known),
        "median": float(np.median(known)) if len(known) else None,
        "strength": config.strength,
        "unit": "norm",
        "prompts": prompts,
        "seconds": time.monotonic() - started,
        "top": [
            {"feature": int(f), "output": float(scores[f])} for f in order if scores[f] == scores[f]
        ],
    }


def _held(folder: Any, facts: dict[str, str], total: int) -> tuple[np.ndarray, int]:
    """What an unfinished job with the same settings left; else nothing."""
    found = read_scores(folder)
    if found is not None and found[0].shape == (total,):
        done = int(found[1].get("done", total))
        if done < total and all(found[1].get(key) == value for key, value in facts.items()):
            return found[0].copy(), done
    return np.full(total, np.nan, dtype=np.float32), 0


class _Scorer:
    """The model on some prompts, with one feature amplified in each row of a batch."""

    def __init__(self, loaded: LoadedSae, prompts: list[str], strength: float) -> None:
        self._lm, self._loaded, self._strength = loaded.lm, loaded, strength
        bos = loaded.sae.metadata.bos("auto")
        self._rows = [loaded.lm.tokenize([prompt], bos=bos)[0] for prompt in prompts]

    @torch.inference_mode()
    def __call__(self, features: np.ndarray, promoted: np.ndarray) -> np.ndarray:
        """Scores [f] of the features [f] whose promoted tokens are [f, t]; NaN without any."""
        tokens = torch.from_numpy(promoted).to(self._lm.device)
        total = torch.zeros(len(features), device=self._lm.device)
        layers = self._lm.layers
        with ExitStack() as hooks:
            for point, rows in rows_written(self._loaded, features.tolist()).items():
                size = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-12)
                unit = (rows / size).to(self._lm.device)
                hook = Amplification(self._lm, unit * self._strength)
                hooks.callback(layers.unregister_hook, layers.register_hook(point, hook))
            for ids in self._rows:
                total += output_score(self._predictions(ids, len(features)), tokens)
        scores = (total / len(self._rows)).cpu().numpy()
        return np.where((promoted >= 0).any(axis=1), scores, np.nan)

    def _predictions(self, ids: list[int], count: int) -> Tensor:
        """The next token's probabilities [count, vocabulary] after one prompt."""
        encoding = self._lm.padded([ids] * count)
        context = ForwardContext(
            encoding.input_ids, encoding.attention_mask, encoding.special, 0, len(ids)
        )
        with self._lm.running(context):
            logits = self._lm.model(**encoding.as_inputs(), use_cache=False).logits[:, -1]
        return torch.softmax(logits.float(), dim=-1)


def rows_written(loaded: LoadedSae, features: Sequence[int]) -> "dict[HookPoint, Tensor]":
    """What each feature adds to each of the layers that are written to: [f, d], zeros where one
    does not write; of an SAE one layer, where its decoder writes."""
    lm, sae = loaded.lm, loaded.sae
    if not isinstance(sae, CrossLayerSae):
        point = point_written(lm, sae, loaded.sae_id) or loaded.layer
        return {point: sae.decoder_rows.detach()[list(features)].float()}
    names = dict(zip(sae.layer_numbers, sae.target_layers, strict=True))
    if isinstance(sae, TwoModelCrosscoder):
        names = sae.points_of(sae.role_of(lm.model_id, lm.revision))
    written = sae.writes(features)
    return {lm.layers.resolve(name): written[to] for to, name in names.items() if to in written}


def output_score(probabilities: Tensor, promoted: Tensor) -> Tensor:
    """(1 - r / V) p for each row of probabilities [f, V], with p the greatest probability among the
    tokens [f, t] (-1: none) and r its rank, 0 for the likeliest: [f]."""
    own = probabilities.gather(1, promoted.clamp_min(0)).masked_fill(promoted < 0, 0.0)
    best = own.amax(dim=1)
    rank = (probabilities > best[:, None]).sum(dim=1)
    return (1 - rank / probabilities.shape[1]) * best


class Amplification(Controller):
    """Adds a row of its own [f, d], times the token's norm, to each text of a batch."""

    def __init__(self, lm: "LanguageModel", rows: Tensor) -> None:
        super().__init__()
        self._lm, self._rows = lm, rows

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        if x is None or x.dim() != 3 or len(x) != len(self._rows):
            return x
        norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
        moved = (x.float() + norms * self._rows[:, None]).to(x.dtype)
        return torch.where(ordinary_tokens(self._lm, x)[..., None], moved, x)
