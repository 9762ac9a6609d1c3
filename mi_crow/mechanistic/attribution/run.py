"""Attributing a prompt's continuation with SAEs of the workspace, as plain values.

The command line loads what it needs for one call; the model session keeps it loaded.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.attribution.question import Question
from mi_crow.mechanistic.attribution.target import (
    Kind,
    Target,
    itself,
    notes_on,
    token_id,
    token_text,
)
from mi_crow.mechanistic.steering.known import KnownFeatures
from mi_crow.mechanistic.steering.loading import LoadedSae, join, open_sae
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding
    from mi_crow.mechanistic.attribution.attribute import Attributed, Attribution
    from mi_crow.mechanistic.attribution.passage import Passage, Passages

_PREDICTIONS = 8


def load_together(
    workspace: Workspace,
    sae_ids: Sequence[str],
    device: str,
    skipped: dict[str, str] | None = None,
) -> list[LoadedSae]:
    """Several SAEs of one model, loaded once. With `skipped` damaged ones are left out, as long as
    one can be read, and stand there with the reason. Raises UserError for SAEs of different
    models, CorruptDataError."""
    from mi_crow.language_model import LanguageModel

    opened = []
    for sae_id in dict.fromkeys(sae_ids):
        try:
            opened.append((sae_id, *open_sae(workspace, sae_id, device)))
        except CorruptDataError as error:
            if skipped is None or (not opened and sae_id == sae_ids[-1]):
                raise
            skipped[sae_id] = error.sentence
    first, _, spec = opened[0]
    for sae_id, _, other in opened[1:]:
        if (other.model, other.revision) != (spec.model, spec.revision):
            raise UserError(
                f"SAE {sae_id!r} reads {other.model!r}, {first!r} reads {spec.model!r}",
                hint="give SAEs of one model",
            )
    lm = LanguageModel.from_spec(spec)
    return [join(sae_id, lm, sae) for sae_id, sae, _ in opened]


def attribute_prompt(
    workspace: Workspace,
    sae_ids: Sequence[str],
    text: str,
    question: Question,
    device: str,
    tell_memory: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """`attribute_loaded` with SAEs of the workspace."""
    loaded = load_together(workspace, sae_ids, device)
    return attribute_loaded(KnownFeatures(workspace), loaded, text, question, tell_memory)


def attribute_loaded(
    known: KnownFeatures,
    loaded: Sequence[LoadedSae],
    text: str,
    question: Question,
    tell_memory: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The causes of one number of the model's answer to `text` (see `attribute.attribute`).
    `tell_memory` gets the bytes that it takes, about, before it takes them.

    Raises UserError for an empty text, a target of several tokens, a feature that does not fire;
    MachineError, naming a length that would fit, when memory runs out.
    """
    from mi_crow.mechanistic.attribution.attribute import attribute, sites_before
    from mi_crow.mechanistic.attribution.memory import attribution_bytes, most_ablations
    from mi_crow.mechanistic.attribution.passage import passages_of
    from mi_crow.mechanistic.attribution.site import SaeSite
    from mi_crow.mechanistic.text_memory import naming_a_length

    lm = loaded[0].lm
    passages = passages_of(lm, text, loaded[0].sae.metadata.bos(question.bos), question.windows)
    tokens = passages.longest
    sites = [SaeSite.of(one) for one in loaded]
    first = min(lm.layers.block_of(one.write) or 0 for one in sites)
    layers, rows = (
        max(len(one.layers) for one in sites),
        most_ablations(sites, question.top, tokens),
    )
    memory = attribution_bytes(lm, tokens, rows, first, layers)
    if tell_memory is not None:
        tell_memory(memory)

    def needed(length: int) -> int:
        return attribution_bytes(lm, length, 1, first, layers)

    with naming_a_length(lm, "attributing", tokens, needed):
        target_site = _target_site(sites, question)
        if target_site is not None:
            wanted = feature_number(question.feature or "", target_site.sae.n_latents)
            sites_before(lm, sites, target_site, wanted)  # no text can mend that
        passage = passages.at(_token_asked_about(lm, passages, target_site, question))
        target = _target(lm, passage, target_site, question)
        if target_site is not None and question.position is not None:
            _check_fires(lm, passage, target_site, target)
        found = attribute(
            lm,
            passage.encoding,
            sites,
            target,
            target_site=target_site,
            top=question.top,
            steps=question.steps,
            prune=question.prune,
            seed=question.seed,
        )
    answers = ((question.target, target.token), (question.against, target.against))
    plain = as_json(known, lm, passage.encoding, found)
    unnamed = [
        known.damaged[one] for one in (site.sae_id for site in sites) if one in known.damaged
    ]
    return plain | {
        "notes": [*notes_on(lm, answers), *unnamed],
        "memory_bytes": memory,
        "steps": question.steps,
        "tokens_read": passages.places,
        "start": passage.start,
    }


def _target_site(sites: "Sequence[Any]", question: Question) -> Any:
    """The site of the SAE whose feature is asked for; None for a target of the output."""
    if question.feature is None:
        return None
    name, _, _ = question.feature.rpartition("/")
    if not name:
        return sites[-1]
    found = [one for one in sites if one.sae_id == name]
    if not found:
        known = ", ".join(one.sae_id for one in sites)
        raise UserError(f"SAE {name!r} is not among those given", hint=f"they are {known}")
    return found[0]


def _token_asked_about(
    lm: "LanguageModel", passages: "Passages", target_site: Any, question: Question
) -> int | None:
    """The token of the text; None is the last."""
    if target_site is None or question.position is not None:
        return question.position
    passages.check_is_read()
    feature = feature_number(question.feature or "", target_site.sae.n_latents)
    return _strongest_token(lm, passages, target_site, feature)


def _target(
    lm: "LanguageModel", passage: "Passage", target_site: Any, question: Question
) -> Target:
    position = passage.position
    if target_site is None:
        own = passage.encoding.input_ids[0, position + 1 : position + 2].tolist()
        against = None if question.against is None else token_id(lm, question.against)
        token = None if question.target is None else token_id(lm, question.target)
        if question.own_token and own:
            [token] = own
        if against is not None and against == token:
            raise itself(lm, against)
        return Target(_kind(question), position, token, against)
    feature = feature_number(question.feature or "", target_site.sae.n_latents)
    return Target("feature", position, sae_id=target_site.sae_id, feature=feature)


def _kind(question: Question) -> Kind:
    if question.against is not None:
        return "difference"
    if question.log_probability:
        return "log_probability"
    return "logit" if question.raw_logit else "centred_logit"


def feature_number(text: str, n_latents: int) -> int:
    """The number in `SAE/NUMBER` or `NUMBER`. Raises UserError."""
    from mi_crow.bounds import FEATURE

    feature = int(FEATURE.read(text.rpartition("/")[2], "feature"))
    if feature >= n_latents:
        raise UserError(
            f"feature {feature} is not in the SAE", hint=f"its features are 0 to {n_latents - 1}"
        )
    return feature


def _strongest_token(lm: "LanguageModel", passages: "Passages", site: Any, feature: int) -> int:
    """Where a feature is strongest. Raises UserError where it does not fire."""
    import torch

    from mi_crow.language_model.capture_pass import run_to
    from mi_crow.mechanistic.attribution.site import Reading

    found = []
    with torch.no_grad():
        for one in passages.encodings:
            read = run_to(lm, site.reads, one.input_ids, one.attention_mask)
            x = [read[point][0] for point in site.reads]
            found.append(Reading(site, x, x, ~one.special[0]).activation_of(feature))
    acts = torch.cat(found)
    if not float(acts.max()) > 0:
        raise UserError(
            f"feature {feature} of {site.sae_id!r} does not fire on this text",
            hint="give a text on which it does, or --token",
        )
    return int(acts.argmax())


def _check_fires(lm: "LanguageModel", passage: "Passage", site: Any, target: Target) -> None:
    """Raises UserError for a feature that is not active on the token asked about."""
    import torch

    from mi_crow.language_model.capture_pass import run_to
    from mi_crow.mechanistic.attribution.passes import activation_at

    encoding, place, start = passage
    with torch.no_grad():
        read = run_to(lm, site.reads, encoding.input_ids, encoding.attention_mask)
        x = torch.cat([read[point][0, place] for point in site.reads])
        if float(activation_at(site, x[None], target)[0]) == 0:
            raise UserError(
                f"feature {target.feature} of {site.sae_id!r} does not fire on token "
                f"{start + place} of this text",
                hint="leave out --token, or name one on which it does",
            )


def as_json(
    known: KnownFeatures, lm: "LanguageModel", encoding: "Encoding", found: "Attribution"
) -> dict[str, Any]:
    """An attribution as plain values, with the names of its features."""
    from mi_crow.language_model.detokenize import shown_tokens

    tree = [one.as_json() for one in found.tree]
    names: dict[str, dict[int, dict[str, Any]]] = {}
    for one in found.saes:
        own = [cause.feature for cause in one.causes]
        own += _features_in(tree, one.site.sae_id)
        names[one.site.sae_id] = known.names(one.site.sae_id, own)
    _name_tree(tree, names)
    return {
        "model_id": lm.model_id,
        "tokens": shown_tokens(lm.tokenizer, encoding.input_ids[0].tolist()),
        "special": encoding.special[0].tolist(),
        "target": found.target.as_json(lm),
        "value": found.value,
        "predictions": predictions(lm, found.logits),
        "saes": [_sae_json(one, names[one.site.sae_id]) for one in found.saes],
        "tree": tree,
    }


def _sae_json(found: "Attributed", names: dict[int, dict[str, Any]]) -> dict[str, Any]:
    measured = found.check.measured if found.check is not None else ()
    return {
        "sae_id": found.site.sae_id,
        "layer": found.site.place if found.site.several else found.site.write.name,
        "point": found.site.place,
        "parts": vars(found.parts),
        **_by_layer(found),
        "first_order": found.parts.first_order,
        "per_token": list(found.per_token),
        "causes": [
            {
                "feature": one.feature,
                **({"layer": one.layer} if one.layer else {}),
                **names[one.feature],
                "effect": one.effect,
                "measured": value,
                "share": one.share,
                "activation": one.activation,
                "tokens": [list(pair) for pair in one.tokens],
            }
            for one, value in zip(found.causes, measured, strict=True)
        ],
        "check": found.check.as_json() if found.check is not None else None,
        "firing": found.firing,
    }


def _by_layer(found: "Attributed") -> dict[str, Any]:
    """The parts at each layer of an SAE over several; of each, what is not of this layer is no
    part."""
    if not found.by_layer:
        return {}
    points = [point.point for point in found.site.writes]
    names = ("features", "error", "bias", "other_tokens")
    rows = [{name: getattr(one, name) for name in names} for one in found.by_layer]
    return {"by_layer": [{"point": p, **row} for p, row in zip(points, rows, strict=True)]}


def _features_in(tree: list[dict[str, Any]], sae_id: str) -> list[int]:
    own = [one["feature"] for one in tree if one["sae_id"] == sae_id]
    return own + [number for one in tree for number in _features_in(one["children"], sae_id)]


def _name_tree(tree: list[dict[str, Any]], names: dict[str, dict[int, dict[str, Any]]]) -> None:
    for one in tree:
        one.update(names[one["sae_id"]][one["feature"]])
        _name_tree(one["children"], names)


def predictions(
    lm: "LanguageModel", logits: "Tensor", count: int = _PREDICTIONS
) -> list[dict[str, Any]]:
    """The likeliest next tokens for logits [vocabulary]."""
    shares = logits.float().softmax(-1)
    best = shares.topk(min(count, len(shares)))
    return [
        {"token": token_text(lm, number), "token_id": number, "probability": share}
        for number, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def predict_without(
    loaded: Sequence[LoadedSae],
    text: str,
    ablated: Sequence[tuple[str, int]],
    position: int | None = None,
    bos: str = "auto",
    windows: bool = False,
) -> dict[str, Any]:
    """What the model says after a token, as it is and with features (SAE, number) ablated on every
    token: `predictions` and `predictions_without`. With `windows` on every token of its window."""
    import torch

    from mi_crow.mechanistic.attribution.passage import passages_of
    from mi_crow.mechanistic.attribution.passes import check_order, graph_pass, logits_changed
    from mi_crow.mechanistic.attribution.site import SaeSite

    lm = loaded[0].lm
    passages = passages_of(lm, text, loaded[0].sae.metadata.bos(bos), windows)
    encoding, place, start = passages.at(position)
    wanted: dict[str, list[int]] = {}
    for sae_id, feature in ablated:
        wanted.setdefault(sae_id, []).append(feature)
    sites = check_order(lm, [SaeSite.of(one) for one in loaded if one.sae_id in wanted])
    with torch.no_grad():
        graph = graph_pass(lm, encoding, sites, place)
    changes = []
    for reading in graph.readings:
        numbers = torch.tensor(wanted[reading.site.sae_id], device=lm.device)
        kept = torch.isin(reading.latents.indices, numbers)
        changes.append((reading, -reading.features_part(kept)))
    without = graph.logits.detach()
    if changes:
        without = logits_changed(lm, encoding, changes, place)
    return {
        "position": start + place,
        "predictions": predictions(lm, graph.logits.detach()),
        "predictions_without": predictions(lm, without),
        "ablated": [[sae_id, feature] for sae_id, feature in ablated],
    }
