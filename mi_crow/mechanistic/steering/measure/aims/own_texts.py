"""The direction to what the model itself writes on a topic.

Texts of a corpus differ from what a model writes in more than their topic: in layout, in style, in
how well it predicts them. A direction learnt from them raises the perplexity by all of that, too.
Texts that the model wrote differ by the topic alone. A search has written hundreds, and judged
them: those that are the most on the topic and cost the least are the one side, its plain texts that
are not on it the other. The same is done by the cross-entropy method (Rubinstein 1999), which goes
on from the best of what it drew.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims.topic_vector import point_of, saved_direction
from mi_crow.mechanistic.steering.measure.judges import Judge
from mi_crow.mechanistic.vectors.activations import activations_on
from mi_crow.mechanistic.vectors.stored import list_vectors
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.measure.bench import ArmTexts

MOST = 48  # texts of each side
FEWEST = 8
KEPT = 16  # of one try
_SHORTEST = 12  # tokens

OwnTexts = list[tuple[str, float]]
"""Texts with what they are worth: see `worthy`."""


def worthy(judge: Judge, steered: "ArmTexts", plain: "ArmTexts", most: int = KEPT) -> OwnTexts:
    """The texts that are hits, the best first: the effect minus the nats a token that a text costs
    more than a plain one does (the median)."""
    if not steered.texts:
        return []
    usual = float(np.median(_costs(plain))) if plain.texts else 0.0
    worth = judge.effects(steered.texts) - np.maximum(_costs(steered) - usual, 0.0)
    found = [
        (prompt + text, round(float(one), 4))
        for prompt, text, ids, one, hit in zip(
            steered.prompts,
            steered.texts,
            steered.token_ids,
            worth,
            judge.hits(steered.texts),
            strict=True,
        )
        if hit and len(ids) >= _SHORTEST
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))[:most]


def _costs(some: "ArmTexts") -> np.ndarray:
    """Nats a token of each text."""
    return some.nats / np.array([max(len(ids), 1) for ids in some.token_ids])


def others_of(judge: Judge, plain: "ArmTexts") -> list[str]:
    """Plain texts that are not on the topic."""
    every = zip(plain.prompts, plain.texts, judge.hits(plain.texts), strict=True)
    return [prompt + text for prompt, text, hit in every if text.strip() and not hit][:MOST]


def own_vector(
    workspace: Workspace,
    loaded: LoadedSae,
    found: Sequence[tuple[str, float]],
    others: Sequence[str],
    feature: int,
    label: str | None = None,
) -> str:
    """Saves the difference of means of the worthiest texts and of `others`, where the SAE writes;
    its name. One that was made from the same texts is not made again. Raises UserError where there
    are fewer than eight of either."""
    best = [text for text, _ in sorted(set(found), key=lambda one: (-one[1], one[0]))][:MOST]
    if min(len(best), len(others)) < FEWEST:
        raise UserError("too few of the texts that were written are on the topic")
    texts = sha256(json.dumps([best, list(others)]).encode()).hexdigest()
    weights = loaded.weights_hash()
    of = {"sae": loaded.sae_id, "weights": weights, "feature": feature, "label": label}
    name = f"{loaded.sae_id[:32]}-{feature}-own-{texts[:8]}"
    held = {one.name: one.made for one in list_vectors(workspace)}
    if held.get(name, {}).get("of") == {**of, "texts": texts}:
        return name
    point = point_of(loaded, feature)
    sides = [{point: activations_on(loaded.lm, [point], some)[point]} for some in (best, others)]
    saved_direction(
        workspace, loaded, name, [point], sides, {**of, "texts": texts}, (len(best), len(others))
    )
    return name
