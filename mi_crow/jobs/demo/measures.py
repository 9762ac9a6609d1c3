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
from mi_crow.mechanistic.steering.effects import Written, perplexity, write_continuations
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.judges import WordProbe
from mi_crow.mechanistic.steering.measure.recipes import DEFAULT, Aim
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.store.runs.reader import RunReader

# An opening that fits every topic: a letter without words of any topic.
PROMPT = "Dear Anna, I hope you are well."
CONTINUATIONS = 32
NEW_TOKENS = 48
TEMPERATURE = 0.8  # what the Steer screen starts with
STRENGTHS = (0.5, 0.6, 0.7)  # norms of the residual stream
_TRIED_TOPICS = 4
_TRIAL_CONTINUATIONS = 64
_MOST_PERPLEXITY = 1.35  # trials above this ratio are rejected


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


def steer_topics(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    reader: "RunReader",
    topics: Sequence[TopicFeature],
    progress: Progress,
    seed: int,
) -> dict[str, Any]:
    """Steering with one topic's feature by the default recipe, measured on fresh continuations.

    Topic and strength are chosen on continuations of another seed.
    """
    judge = _judge(reader)
    layer = reader.layer.name
    detected = [topic for topic in topics if topic.is_detected] or topics
    candidates = sorted(detected, key=lambda topic: -topic.contrast)[:_TRIED_TOPICS]
    trials = [(topic, strength) for topic in candidates for strength in STRENGTHS]

    maxima = {topic.feature: topic.max_act for topic in topics}

    def write(arm: Arm | None, at: int, n: int = CONTINUATIONS) -> Written:
        return write_continuations(
            lm,
            sae,
            layer,
            [PROMPT],
            arm.interventions if arm is not None else (),
            maxima,
            n=n,
            max_new_tokens=NEW_TOKENS,
            temperature=TEMPERATURE,
            seed=at,
        )

    trial_seed = seed + 1000
    plain = perplexity(lm, write(None, trial_seed, _TRIAL_CONTINUATIONS))
    found: list[tuple[float, TopicFeature, float]] = []
    for number, (topic, strength) in enumerate(trials):
        raise_if_stopped(progress)
        progress.update(number, len(trials) + 3, "trial")
        trial = write(steered_by(topic.feature, strength), trial_seed, _TRIAL_CONTINUATIONS)
        ratio = perplexity(lm, trial) / plain
        share = trial.share(topic.label, judge)
        found.append((share if ratio <= _MOST_PERPLEXITY else share - 1, topic, strength))
    _, topic, strength = max(found, key=lambda one: one[0])
    arm = steered_by(topic.feature, strength)
    baseline, steered = write(None, seed), write(arm, seed)
    control, greatest = _random_feature(topics, sae, reader, seed)
    maxima[control] = greatest
    other = write(steered_by(control, strength), seed)
    return {
        "feature": topic.feature,
        "label": topic.label,
        "strength": strength,
        "unit": "norm",
        "recipe": DEFAULT.name,
        "interventions": [one.as_json() for one in arm.interventions],
        "share_baseline": baseline.share(topic.label, judge),
        "share_steered": steered.share(topic.label, judge),
        "share_random": other.share(topic.label, judge),
        "perplexity_ratio": perplexity(lm, steered) / perplexity(lm, baseline),
        **_pair(baseline, steered, topic.label, judge),
    }


def steered_by(feature: int, strength: float) -> Arm:
    """The default recipe on a feature, at a strength in norms of the residual stream."""
    arm = DEFAULT.build(Aim(feature))
    assert arm is not None  # it needs nothing but the feature
    return arm.scaled(strength)


def _pair(baseline: Written, steered: Written, label: str, judge: Any) -> dict[str, str]:
    """The first continuation that steering moved to the topic, beside its baseline."""
    labels = list(zip(judge(baseline.texts), judge(steered.texts), strict=True))
    moved = [i for i, (before, after) in enumerate(labels) if before != label == after]
    place = moved[0] if moved else 0
    return {
        "prompt": PROMPT,
        "baseline": baseline.texts[place],
        "steered": steered.texts[place],
    }


def _random_feature(
    topics: Sequence[TopicFeature], sae: "SparseAutoencoder", reader: "RunReader", seed: int
) -> tuple[int, float]:
    """A random feature that fires and belongs to no topic, and the greatest of its activations on
    a sample of tokens."""
    tokens = reader.sample(4096, seed).to(sae.device).float()
    alive = sae.encode_sparse(tokens)
    fired = torch.unique(alive.indices[alive.values > 0]).cpu()
    named = torch.tensor([topic.feature for topic in topics])
    fired = fired[~torch.isin(fired, named)]
    generator = torch.Generator().manual_seed(seed)
    chosen = int(fired[torch.randint(len(fired), (1,), generator=generator)])
    return chosen, float(alive.values[alive.indices == chosen].max())


def _judge(reader: "RunReader") -> Any:
    """A bag-of-words classifier trained on the raw texts of the corpus."""
    texts: list[str] = []
    labels: list[str] = []
    for part in reader.parts():
        texts += part.table["text"].to_pylist()
        labels += part.table["label"].to_pylist()
    return WordProbe(texts, labels).predict


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
