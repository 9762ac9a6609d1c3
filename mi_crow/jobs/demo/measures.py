"""What the demo measures beyond an evaluation: a feature per topic, controls, steering."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.records import is_telling
from mi_crow.mechanistic.sae.evaluation.document_pooling import PooledRun, pooled_documents
from mi_crow.mechanistic.sae.evaluation.pooled_auroc import label_auroc
from mi_crow.mechanistic.sae.evaluation.probes import PooledDocuments, auroc
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Judging, Trial
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.steering.loading import LoadedSae
    from mi_crow.store.runs.reader import RunReader

# An opening that fits every topic: a letter without words of any topic.
PROMPT = "Dear Anna, I hope you are well."
CONTINUATIONS = 64  # of fresh prompts, that are reported
NEW_TOKENS = 48
TEMPERATURE = 0.8  # what the Steer screen starts with
_SHOWN = 8  # continuations that the one shown is taken from


@dataclass(frozen=True)
class TopicFeature:
    """The feature that detects a topic best."""

    label: str
    feature: int
    auroc: float  # on held-out documents; the feature was chosen on training documents
    max_act: float
    contrast: float  # mean pooled activation on the topic minus elsewhere, relative to the maximum

    @property
    def is_detected(self) -> bool:
        """Whether the feature detects the topic at all."""
        return is_telling(self.auroc)

    def as_json(self) -> dict[str, Any]:
        feature = self.feature if self.is_detected else None
        return {"label": self.label, "feature": feature, "auroc": self.auroc}


def topic_features(
    sae: "SparseAutoencoder", reader: "RunReader", seed: int
) -> tuple[list[TopicFeature], dict[str, float]]:
    """Each topic's best feature, and the mean AUROC of a random SAE and of the best residual
    dimension, chosen and scored in the same way."""
    pooled = _pooled(sae, reader, seed)
    control = TopKSae.random(
        sae.n_latents,
        sae.n_inputs,
        int(sae.config()["k"]),
        b_dec=sae.b_dec.detach(),
        device=sae.device,
        seed=seed,
    )
    control.metadata = sae.metadata
    random_scores = _best_scores(_pooled(control, reader, seed).latents)
    # A dimension can point away from a topic: both signs are candidates.
    both = torch.cat([pooled.residual.features, -pooled.residual.features], dim=1)
    residual = PooledDocuments(both, pooled.residual.labels, pooled.residual.heldout)
    residual_scores = _best_scores(residual)
    topics = [
        _topic(pooled, number, feature, score)
        for number, (feature, score) in enumerate(_best_scores(pooled.latents))
    ]
    controls = {
        "random_sae_auroc": _mean([score for _, score in random_scores]),
        "residual_auroc": _mean([score for _, score in residual_scores]),
    }
    return topics, controls


def tag_topics(workspace: Workspace, sae_id: str, topics: Sequence[TopicFeature]) -> None:
    """Names each feature after the topic that it detects."""
    annotations = Annotations(workspace.annotations_path)
    try:
        for topic in (topic for topic in topics if topic.is_detected):
            annotations.set_concept(
                sae_id,
                topic.feature,
                topic.label,
                confidence=topic.auroc,
                note="named by the demo: best feature of this topic's documents",
                source="demo",
            )
    finally:
        annotations.close()


def steer_topic(
    workspace: Workspace,
    loaded: "LoadedSae",
    topics: Sequence[TopicFeature],
    progress: Progress,
    seed: int,
) -> dict[str, Any]:
    """Steering to the topic that a feature tells most clearly, as `mi-crow steer --auto --label`
    chooses: its recipe and strength, the shares of texts on the topic, and a text beside its
    baseline. The measurement stays in the workspace."""
    from mi_crow.mechanistic.steering.measure.auto import run_auto

    detected = [topic for topic in topics if topic.is_detected] or topics
    label = max(detected, key=lambda topic: topic.contrast).label
    config = AutoConfig(loaded.sae_id, label=label, trial=Trial(n=CONTINUATIONS, seed=seed))
    found = run_auto(workspace, config, progress, loaded)
    raise_if_stopped(progress)
    same = ("feature", "label", "recipe", "strength", "unit", "interventions", "plausible")
    figures = ("share_baseline", "share_random", "perplexity_ratio", "measurement")
    return {
        **{key: found[key] for key in (*same, *figures)},
        "share_steered": found["share"],
        **_pair(workspace, loaded, found, seed),
    }


def _pair(
    workspace: Workspace, loaded: "LoadedSae", found: dict[str, Any], seed: int
) -> dict[str, str]:
    """The first continuation of `PROMPT` that steering moved to the topic, beside its baseline."""
    from mi_crow.mechanistic.steering.measure.indexed import Indexed
    from mi_crow.mechanistic.steering.measure.judges import judge_of
    from mi_crow.mechanistic.steering.run import steer_loaded

    written = steer_loaded(
        workspace,
        loaded,
        PROMPT,
        [Intervention.from_json(one) for one in found["interventions"]],
        max_new_tokens=NEW_TOKENS,
        temperature=TEMPERATURE,
        seed=seed,
        n=_SHOWN,
        plausible=found["plausible"],
    )["samples"]
    pairs = [(one["baseline"]["text"], one["steered"]["text"]) for one in written]
    texts = Indexed.open(workspace, loaded.sae_id).texts
    judge = judge_of(Judging(label=found["label"]), None, texts, NEW_TOKENS // 2)
    hits = [judge.hits(list(pair)) for pair in pairs]
    place = next((at for at, hit in enumerate(hits) if hit == [False, True]), 0)
    return {"prompt": PROMPT, "baseline": pairs[place][0], "steered": pairs[place][1]}


def _pooled(sae: "SparseAutoencoder", reader: "RunReader", seed: int) -> PooledRun:
    pooled = pooled_documents(sae, reader, seed)
    if pooled is None:
        raise ValueError("the sample corpus has labels")
    return pooled


def _best_scores(documents: PooledDocuments) -> list[tuple[int, float]]:
    """For each label the column with the greatest AUROC on training documents, and its AUROC on
    held-out ones."""
    n_labels = int(documents.labels.max()) + 1
    train = ~documents.heldout
    best = label_auroc(documents.features, documents.labels, n_labels, train).argmax(dim=1)
    return [
        (
            int(column),
            auroc(
                documents.features[documents.heldout, column],
                documents.labels[documents.heldout] == label,
            ),
        )
        for label, column in enumerate(best)
    ]


def _topic(pooled: PooledRun, number: int, feature: int, score: float) -> TopicFeature:
    values = pooled.latents.features[:, feature]
    inside = pooled.latents.labels == number
    greatest = float(values.max())
    contrast = float(values[inside].mean() - values[~inside].mean()) / max(greatest, 1e-9)
    return TopicFeature(pooled.labels[number], feature, score, greatest, contrast)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
