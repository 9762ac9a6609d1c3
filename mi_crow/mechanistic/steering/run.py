"""Inspecting a text and steering a prompt with an SAE of the workspace.

The command line loads what it needs for one call; the model session keeps it loaded and calls the
`_loaded` functions.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.detokenize import token_texts
from mi_crow.language_model.tokenize import encode_batch
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import Generation, LanguageModel
    from mi_crow.mechanistic.sae import SparseAutoencoder

_PER_TOKEN = 8  # features listed for each token


def load_attached(
    workspace: Workspace, sae_id: str, device: str = "auto"
) -> "tuple[LanguageModel, SparseAutoencoder, str]":
    """The SAE, its model, and the layer it belongs to, on one device.

    Raises NotFoundError for an unknown SAE, UserError when it does not say its model or layer, or
    does not fit it.
    """
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.language_model.loading import torch_device
    from mi_crow.mechanistic.sae import load_sae

    sae = load_sae(workspace.sae_dir(sae_id), torch_device(device)).eval()
    facts = sae.metadata
    if not facts.model_name or not facts.layer_signature:
        raise UserError(
            f"SAE {sae_id!r} does not say its model and layer", hint="import it with --model"
        )
    lm = LanguageModel.from_spec(
        ModelSpec(facts.model_name, revision=facts.revision, device=device)
    )
    layer = lm.layers.resolve(facts.layer_signature)
    width = lm.layers.width(layer.point)
    if width != sae.n_inputs:
        raise UserError(
            f"SAE {sae_id!r} reads {sae.n_inputs} inputs, layer {layer.name!r} has {width}",
            hint="it belongs to another model or layer",
        )
    return lm, sae, layer.point


def inspect_text(
    workspace: Workspace, sae_id: str, text: str, *, device: str = "auto", top: int = 20
) -> dict[str, Any]:
    """The features that fire on a text (see `inspect_loaded`), each with its concept."""
    _check_text(text)
    lm, sae, layer = load_attached(workspace, sae_id, device)
    result = inspect_loaded(lm, sae, layer, text, top)
    names = concept_names(workspace, sae_id)
    for row in result["features"]:
        row["concept"] = names.get(row["feature"])
    return result


@torch.inference_mode()
def inspect_loaded(
    lm: "LanguageModel", sae: "SparseAutoencoder", layer: str, text: str, top: int = 20
) -> dict[str, Any]:
    """Tokens of `text` and the features that fire on them.

    `features` holds the `top` strongest with one activation a token; `per_token` the strongest
    (feature, activation) pairs of each token. Special and outlier tokens count as silent and are
    flagged.
    """
    from mi_crow.language_model.capture_pass import run_to

    _check_text(text)
    context = getattr(lm.model.config, "max_position_embeddings", None)
    encoding = encode_batch(lm.tokenizer, [text], context).to(lm.device)
    point = lm.layers.resolve(layer)
    x = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point][0]
    latents = sae.encode_sparse(x.to(sae.device))
    special = encoding.special[0].to(sae.device)
    outlier = torch.zeros_like(special)
    if sae.metadata.outlier_norm is not None:
        outlier = (x.float().norm(dim=-1).to(sae.device) > sae.metadata.outlier_norm) & ~special
    values = latents.values.float().masked_fill((special | outlier)[:, None], 0.0).clamp_min(0)
    acts = torch.zeros(values.shape[0], sae.n_latents, device=values.device)
    acts.scatter_add_(1, latents.indices, values)
    strongest, features = acts.amax(0).topk(min(top, sae.n_latents))
    shown = [int(f) for f, value in zip(features, strongest, strict=True) if value > 0]
    token_best = values.topk(min(_PER_TOKEN, values.shape[1]), dim=1)
    token_features = latents.indices.gather(1, token_best.indices)
    return {
        "tokens": token_texts(lm.tokenizer, encoding.input_ids[0].tolist()),
        "special": special.tolist(),
        "outlier": outlier.tolist(),
        "features": [
            {
                "feature": feature,
                "concept": None,
                "max_act": float(acts[:, feature].max()),
                "acts": acts[:, feature].tolist(),
            }
            for feature in shown
        ],
        "per_token": [
            [[int(f), float(v)] for f, v in zip(row, best, strict=True) if v > 0]
            for row, best in zip(token_features.tolist(), token_best.values.tolist(), strict=True)
        ],
    }


def steer_prompt(
    workspace: Workspace,
    sae_id: str,
    prompt: str,
    interventions: Sequence[Intervention],
    *,
    device: str = "auto",
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_p: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Baseline and steered continuation of a prompt (see `steer_loaded`)."""
    max_acts = feature_maxima(workspace, sae_id, interventions)
    lm, sae, layer = load_attached(workspace, sae_id, device)
    return steer_loaded(
        lm,
        sae,
        layer,
        prompt,
        interventions,
        max_acts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )


def steer_loaded(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer: str,
    prompt: str,
    interventions: Sequence[Intervention],
    max_acts: Mapping[int, float],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_p: float = 1.0,
    seed: int = 0,
    baseline: bool = True,
    on_token: Callable[[str, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Continues `prompt` plainly (when `baseline` is set) and under the interventions, same seed.

    `on_token` gets the side and each piece of text.
    """

    def write(side: str) -> "Generation":
        def report(piece: str) -> None:
            if on_token is not None:
                on_token(side, piece)

        return lm.generate(prompt, max_new_tokens, temperature, top_p, seed, report, should_stop)

    started, tokens, stopped, text = perf_counter(), 0, False, ""
    if baseline:
        with lm.plain():
            plain = write("baseline")
        tokens, stopped, text = len(plain.token_ids[0]), plain.stopped, plain.text
    steered_text = ""
    if not stopped:
        with steering(lm, sae, layer, interventions, max_acts):
            steered = write("steered")
        tokens += len(steered.token_ids[0])
        stopped, steered_text = steered.stopped, steered.text
    seconds = perf_counter() - started
    return {
        "baseline": text,
        "steered": steered_text,
        "interventions": [one.as_json() for one in interventions],
        "metrics": {"tokens": tokens, "seconds": seconds, "tokens_s": tokens / max(seconds, 1e-9)},
        "stopped": stopped,
    }


def feature_maxima(
    workspace: Workspace, sae_id: str, interventions: Sequence[Intervention]
) -> dict[int, float]:
    """The greatest activation of each feature that is changed in units of it, from the index.

    Raises NotFoundError when there is no index, UserError for a feature that never fires.
    """
    workspace.sae_dir(sae_id)
    wanted = sorted(
        {one.feature for one in interventions if one.unit == "max" and one.feature is not None}
    )
    if not wanted:
        return {}
    from mi_crow.mechanistic.features.queries import FeatureStore

    store = FeatureStore.open(workspace, sae_id)
    rows = {feature: store.detail(feature).row for feature in wanted}
    for feature, row in rows.items():
        if not row.max_act:
            raise UserError(
                f"feature {feature} never fires in the index",
                hint="give its strength in latent units, e.g. +8",
            )
    return {feature: float(row.max_act) for feature, row in rows.items()}


def concept_names(workspace: Workspace, sae_id: str) -> dict[int, str]:
    """Names that people gave to features of an SAE."""
    if not workspace.annotations_path.exists():
        return {}
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        return {concept.feature: concept.name for concept in annotations.concepts(sae_id)}
    finally:
        annotations.close()


def _check_text(text: str) -> None:
    if not text.strip():
        raise UserError("the text is empty", hint="write a few words")
