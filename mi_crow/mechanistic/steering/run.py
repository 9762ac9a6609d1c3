"""Inspecting a text and steering a prompt with an SAE of the workspace.

The command line loads what it needs for one call; the model session keeps it loaded and calls the
`_loaded` functions.
"""

import math
from collections.abc import Callable, Collection, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.steering.fits import all_maxima, check_stack, looked_up
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.known import KnownFeatures, concept_names
from mi_crow.mechanistic.steering.loading import (
    LoadedModel,
    LoadedSae,
    load_for_work,
    load_model,
)
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import Generation, LanguageModel
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.language_model.decoding.steps import Prefixes
    from mi_crow.mechanistic.steering.parts import LoadedParts
    from mi_crow.mechanistic.steering.ranking import Ranking, Scales

OnToken = Callable[[str, int, str], None]  # side (baseline | steered), sample, text

# What to lower where there is too little memory to write.
LOWER = "lower --max-new-tokens, or shorten the prompt"


def inspect_text(
    workspace: Workspace,
    sae_id: str,
    text: str,
    top: int = 20,
    device: str = "auto",
    bos: str = "auto",
    windows: bool = False,
    ranking: "Ranking | None" = None,
) -> dict[str, Any]:
    """The features that fire on a text (see `inspection.inspect`), each with its concept, its label
    on held-out texts and the score of that."""
    loaded = load_for_work(workspace, sae_id, device)
    found = inspect_several(KnownFeatures(workspace), [loaded], text, top, bos, windows, ranking)
    return found[0]


def inspect_several(
    known: KnownFeatures,
    loaded: Sequence[LoadedSae],
    text: str,
    top: int = 20,
    bos: str = "auto",
    windows: bool = False,
    ranking: "Ranking | None" = None,
) -> list[dict[str, Any]]:
    """`inspect_text` for several SAEs of one model, which reads the text once.

    Without a ranking they are ordered by meaning, or by their activations where there is no index.
    Raises NotFoundError for a ranking that needs an index where there is none.
    """
    from mi_crow.mechanistic.steering.inspection import inspect_all
    from mi_crow.mechanistic.steering.ranking import Ranking

    asked = ranking or Ranking()
    scales = [scales_of(known, one, ranking) for one in loaded]
    named = [named_in(known, one, asked) for one in loaded]
    found = inspect_all(loaded, text, top, bos, windows, asked, scales, named)
    for result in found:
        names = known.names(result["sae_id"], [row["feature"] for row in result["features"]])
        for row in result["features"]:
            row.update(names[row["feature"]])
    return found


def scales_of(
    known: KnownFeatures, loaded: LoadedSae, ranking: "Ranking | None"
) -> "Scales | None":
    """What the SAE's index knows of its features; None without an index of these weights. Raises
    NotFoundError for a ranking that needs one."""
    from mi_crow.mechanistic.steering.ranking import Scales

    figures = known.figures(loaded.sae_id)
    if figures is not None and len(figures[0]) != loaded.sae.n_latents:
        figures = None  # an index of other weights
    if figures is None and ranking is not None and ranking.needs_index:
        raise NotFoundError(
            f"SAE {loaded.sae_id!r} has no index, which this order needs",
            hint=f"mi-crow index --sae {loaded.sae_id} builds it, or order by raw",
        )
    return None if figures is None else Scales.of(figures, loaded.lm.device)


def named_in(known: KnownFeatures, loaded: LoadedSae, ranking: "Ranking") -> "Collection[int]":
    """The named features, where the ranking keeps only these."""
    return concept_names(known.workspace, loaded.sae_id) if ranking.named_only else ()


def inspect_vectors(
    workspace: Workspace,
    loaded: LoadedSae,
    names: Sequence[str],
    text: str,
    bos: str = "auto",
    windows: bool = False,
) -> list[dict[str, Any]]:
    """How far along vectors of the workspace the tokens of a text are (see
    `inspection.vector_activations`), read as for the SAE. Raises UserError, NotFoundError."""
    from mi_crow.mechanistic.steering.inspection import vector_activations
    from mi_crow.mechanistic.vectors.stored import load_vector

    vectors = [load_vector(workspace, name) for name in dict.fromkeys(names)]
    return vector_activations(loaded.lm, vectors, text, loaded.sae.metadata.bos(bos), windows)


def steer_prompt(
    workspace: Workspace,
    sae_id: "str | ModelSpec",
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
    n: int = 1,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Baseline and steered continuation of a prompt (see `steer_loaded`), with an SAE or with a
    model alone, which runs on its own device."""
    own = sae_id if isinstance(sae_id, str) else None
    # Fail before a model loads.
    check_stack(workspace, interventions, own)
    all_maxima(workspace, own, looked_up(workspace, interventions, own))
    loaded = (
        load_for_work(workspace, sae_id, device) if isinstance(sae_id, str) else load_model(sae_id)
    )
    with explain_shortage(f"steering on {loaded.lm.device}", LOWER):
        return steer_loaded(
            workspace,
            loaded,
            prompt,
            interventions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            bos=bos,
            plausible=plausible,
            kl_budget=kl_budget,
            n=n,
            allow_code=allow_code,
        )


def steer_loaded(
    workspace: Workspace,
    loaded: LoadedSae | LoadedModel,
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
    n: int = 1,
    prefixes: "Prefixes | None" = None,
    loaded_parts: "LoadedParts | None" = None,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Continues `prompt` `n` times plainly (when `baseline` is set) and under the interventions,
    with the same random numbers and in one batch.

    `on_token` gets the side, the sample and each piece of text. `metrics` has tokens, seconds,
    tokens_s and, unless it was stopped, `kl`: nats per token between the plain and the steered
    model's predictions on the steered texts; `perplexity`, that of these texts under the plain
    model, and `perplexity_ratio` to the baseline's. `samples` has both texts of each sample with
    what `readings.read_generation` reads in them for the `targets`, features of the open SAE first;
    `promoted` are the tokens that these promote (see `readings.promoted_by`). `plausible` and
    `kl_budget` constrain the steered text (see `LanguageModel.generate`). `bos` and `bos_added` are
    those of `inspection.inspect`. `shortened_to` is the number of new tokens after which the
    model's context was full, else None. `prefixes` keep the prompt for the next call, and
    `loaded_parts` what the interventions refer to beside the open SAE. A user's function only runs
    with `allow_code`.

    Raises UserError for what does not fit, such as a feature of other weights of its SAE.
    """
    from mi_crow.language_model.generation import SIDES, Sampling, generate_sides
    from mi_crow.mechanistic.steering.parts import LoadedParts
    from mi_crow.mechanistic.steering.readings import (
        feature_targets,
        promoted_by,
        read_generation,
        watching,
    )
    from mi_crow.mechanistic.steering.steer import sources_beside, steering_with

    lm = loaded.lm
    stack = looked_up(workspace, interventions, loaded.sae_id)
    loaded_parts = loaded_parts or LoadedParts(workspace, lm)
    parts = loaded_parts.parts(loaded, stack)
    # Features of the open SAE are read while the text is written.
    own = [one for one in stack if one.enabled and one.sae in (None, loaded.sae_id)]
    maxima = parts.own.max_acts if parts.own is not None else {}
    own_bos = loaded.sae.metadata.bos(bos) if isinstance(loaded, LoadedSae) else bos
    sampling = Sampling(
        max_new_tokens,
        temperature,
        top_p,
        seed,
        n,
        bos=own_bos,
        plausible=plausible,
        kl_budget=kl_budget,
    )
    # Where nothing is changed, the same text would be written twice. In a smaller batch its last
    # bits differ; twice as many rows would cost a fifth more.
    same = all(one.changes_nothing for one in stack)
    sides = ("baseline",) if same else SIDES if baseline else ("steered",)

    def report(side: str, sample: int, piece: str) -> None:
        if on_token is not None:
            for told in ("baseline", "steered") if same else (side,):
                if baseline or told == "steered":
                    on_token(told, sample, piece)

    targets = feature_targets(own)
    others = sources_beside(lm, parts, stack)
    promoted: list[dict[str, Any]] = []
    readings: dict[str, list[dict[str, Any]]] = {}
    with (
        watching(loaded, targets, [*others.values()]) as watched,
        steering_with(lm, parts, stack, allow_code=allow_code),
    ):
        started = perf_counter()
        found = generate_sides(
            lm,
            prompt,
            sampling,
            sides,
            report,
            should_stop,
            prefixes=prefixes,
            key=f"{[one.as_json() for one in stack]} {sorted(maxima.items())} "
            f"{loaded_parts.versions}",
        )
        written: dict[str, Generation] = {**found}
        metrics = _speed(written, perf_counter() - started)
        if same:
            written["steered"] = written["baseline"]
            if not baseline:
                del written["baseline"]
        if not _stopped(written):
            promoted = promoted_by(loaded, targets)
            for side, generation in written.items():
                if should_stop is not None and should_stop():
                    readings.clear()  # the texts are whole; nobody waits for what is read in them
                    break
                acting = own if side == "steered" else None
                read = read_generation(lm, watched, generation, acting, maxima, promoted)
                readings[side] = read
        if readings:
            metrics |= _costs(readings)
    return {
        "baseline": written["baseline"].text if "baseline" in written else "",
        "steered": written["steered"].text if "steered" in written else "",
        "samples": _samples(written, readings, n),
        "targets": [*(f"feature:{feature}" for feature in targets), *others],
        "promoted": promoted,
        "interventions": [one.as_json(within=loaded.sae_id) for one in interventions],
        "sae_id": loaded.sae_id,
        "model_id": lm.model_id,
        "revision": lm.revision,
        "metrics": metrics,
        "stopped": _stopped(written),
        **_read_of(lm, prompt, own_bos, list(written.values())),
    }


def _speed(written: "dict[str, Generation]", seconds: float) -> dict[str, Any]:
    tokens = sum(len(ids) for one in written.values() for ids in one.token_ids)
    return {"tokens": tokens, "seconds": seconds, "tokens_s": tokens / max(seconds, 1e-9)}


def _costs(readings: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """KL and perplexity over all steered texts, a token counting as a token."""
    found = {}
    if (kl := _mean(readings["steered"], lambda one: one.get("kl"))) is not None:
        found["kl"] = kl
    nats = {side: _mean(rows, _surprise) for side, rows in readings.items()}
    if (steered := nats["steered"]) is not None:
        found["perplexity"] = math.exp(steered)
        if (plain := nats.get("baseline")) is not None:
            found["perplexity_ratio"] = math.exp(steered - plain)
    return found


def _surprise(reading: dict[str, Any]) -> float | None:
    perplexity = reading["perplexity"]
    return math.log(perplexity) if perplexity else None


def _mean(
    readings: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float | None]
) -> float | None:
    """The mean over all tokens of a value that each reading has for its tokens' mean."""
    pairs = [(value(one), len(one["tokens"])) for one in readings]
    known = [(found, tokens) for found, tokens in pairs if found is not None and tokens]
    total = sum(tokens for _, tokens in known)
    return sum(found * tokens for found, tokens in known) / total if total else None


def _samples(
    written: "dict[str, Generation]", readings: dict[str, list[dict[str, Any]]], n: int
) -> list[dict[str, Any]]:
    """Both texts of each sample; what was read in them where it was not stopped."""
    return [
        {
            side: {"text": one.texts[number]} | (readings[side][number] if readings else {})
            for side, one in written.items()
        }
        for number in range(n)
    ]


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
