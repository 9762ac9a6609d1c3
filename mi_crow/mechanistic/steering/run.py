"""Inspecting a text and steering a prompt with an SAE of the workspace.

The command line loads what it needs for one call; the model session keeps it loaded and calls the
`_loaded` functions.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import Generation, LanguageModel

OnToken = Callable[[str, str], None]  # side (baseline | steered), text


def inspect_text(
    workspace: Workspace,
    sae_id: str,
    text: str,
    top: int = 20,
    device: str = "auto",
    bos: str = "auto",
    windows: bool = False,
) -> dict[str, Any]:
    """The features that fire on a text (see `inspection.inspect`), each with its concept."""
    loaded = load_for_work(workspace, sae_id, device)
    return inspect_loaded(workspace, loaded, text, top, bos, windows)


def inspect_loaded(
    workspace: Workspace,
    loaded: LoadedSae,
    text: str,
    top: int = 20,
    bos: str = "auto",
    windows: bool = False,
) -> dict[str, Any]:
    """`inspect_text` with a loaded SAE."""
    from mi_crow.mechanistic.steering.inspection import inspect

    result = inspect(loaded, text, top, bos, windows)
    names = concept_names(workspace, loaded.sae_id)
    for row in result["features"]:
        row["concept"] = names.get(row["feature"])
    return result


def steer_prompt(
    workspace: Workspace,
    sae_id: str,
    prompt: str,
    interventions: Sequence[Intervention],
    *,
    device: str = "auto",
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    bos: str = "auto",
    plausible: float | None = None,
    kl_budget: float | None = None,
) -> dict[str, Any]:
    """Baseline and steered continuation of a prompt (see `steer_loaded`)."""
    for one in interventions:
        one.check_sae(sae_id, lambda: None)
    feature_maxima(workspace, sae_id, interventions)  # fail before a model loads
    return steer_loaded(
        workspace,
        load_for_work(workspace, sae_id, device),
        prompt,
        interventions,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        bos=bos,
        plausible=plausible,
        kl_budget=kl_budget,
    )


def steer_loaded(
    workspace: Workspace,
    loaded: LoadedSae,
    prompt: str,
    interventions: Sequence[Intervention],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    baseline: bool = True,
    on_token: OnToken | None = None,
    should_stop: Callable[[], bool] | None = None,
    bos: str = "auto",
    plausible: float | None = None,
    kl_budget: float | None = None,
) -> dict[str, Any]:
    """Continues `prompt` plainly (when `baseline` is set) and under the interventions, same seed.

    `on_token` gets the side and each piece of text. `metrics` has tokens, seconds, tokens_s and,
    unless it was stopped, `kl`: nats per token between the plain and the steered model's
    predictions on the steered text. `plausible` and `kl_budget` constrain the steered text (see
    `LanguageModel.generate`). `bos` and `bos_added` are those of `inspection.inspect`.
    `shortened_to` is the number of new tokens after which the model's context was full, else None.

    Raises UserError for a feature of another SAE, or of other weights of it.
    """
    from mi_crow.mechanistic.steering.effects import divergence
    from mi_crow.mechanistic.steering.steer import steering

    lm = loaded.lm
    for one in interventions:
        one.check_sae(loaded.sae_id, loaded.weights_hash)
    maxima = feature_maxima(workspace, loaded.sae_id, interventions)

    def write(side: str) -> "Generation":
        def report(piece: str) -> None:
            if on_token is not None:
                on_token(side, piece)

        return lm.generate(
            prompt,
            max_new_tokens,
            temperature,
            top_p,
            seed,
            report,
            should_stop,
            bos=loaded.sae.metadata.bos(bos),
            plausible=plausible,
            kl_budget=kl_budget,
        )

    written: dict[str, Generation] = {}
    with steering(lm, loaded.sae, loaded.layer, interventions, maxima):
        started = perf_counter()
        if baseline:
            with lm.plain():
                written["baseline"] = write("baseline")
        if not _stopped(written):
            written["steered"] = write("steered")
        seconds = perf_counter() - started
        tokens = sum(len(one.token_ids[0]) for one in written.values())
        metrics = {"tokens": tokens, "seconds": seconds, "tokens_s": tokens / max(seconds, 1e-9)}
        if not _stopped(written):
            metrics["kl"] = divergence(lm, written["steered"])
    return {
        "baseline": written["baseline"].text if "baseline" in written else "",
        "steered": written["steered"].text if "steered" in written else "",
        "interventions": [one.as_json(within=loaded.sae_id) for one in interventions],
        "sae_id": loaded.sae_id,
        "model_id": lm.model_id,
        "revision": lm.revision,
        "metrics": metrics,
        "stopped": _stopped(written),
        **_read_of(lm, prompt, loaded.sae.metadata.bos(bos), list(written.values())),
    }


def _read_of(
    lm: "LanguageModel", prompt: str, bos: str, written: "Sequence[Generation]"
) -> dict[str, Any]:
    """How the prompt was read, and how many of the new tokens fitted the context."""
    from mi_crow.mechanistic.steering.inspection import read_text

    return {
        "prompt_tokens": len(written[0].prompt_ids),
        "context_length": lm.context,
        "shortened_to": next((one.shortened_to for one in written if one.shortened_to), None),
        "bos_added": read_text(lm, prompt, bos).bos_added,
    }


def _stopped(written: "dict[str, Generation]") -> bool:
    return any(one.stopped for one in written.values())


def feature_maxima(
    workspace: Workspace, sae_id: str, interventions: Sequence[Intervention]
) -> dict[int, float]:
    """The greatest activation, from the index, of each feature that is measured by it.

    Raises NotFoundError without the index or the feature, UserError for one that never fires.
    """
    workspace.sae_dir(sae_id)
    wanted = sorted(frozenset().union(*(one.uses_maxima for one in interventions)))
    if not wanted:
        return {}
    from mi_crow.mechanistic.features.queries import FeatureStore

    maxima = {row.feature: row.max_act for row in FeatureStore.open(workspace, sae_id).rows(wanted)}
    for feature, value in maxima.items():
        if not value:
            raise UserError(
                f"feature {feature} never fires in the index",
                hint="give its strength in latent units, e.g. +8",
            )
    return maxima


def concept_names(workspace: Workspace, sae_id: str) -> dict[int, str]:
    """The most confident name of each named feature of an SAE."""
    if not workspace.annotations_path.exists():
        return {}
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        concepts = sorted(annotations.concepts(sae_id), key=lambda one: one.confidence)
        return {concept.feature: concept.name for concept in concepts}
    finally:
        annotations.close()
