"""The results of queries: frozen dataclasses of plain values, torch-free."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mi_crow.bounds import REAL, SHARE
from mi_crow.mechanistic.sae.cross_layer.origins import IN_WORDS
from mi_crow.store.json_object import JsonRecord

LEAST_AUROC = 0.7  # on held-out documents; a label below it is not shown for a feature


class CofiringTokens(NamedTuple):
    """The tokens over which co-activation was counted: a sample for wide SAEs."""

    counted: int
    total: int

    @property
    def is_sample(self) -> bool:
        return self.counted < self.total

    def words(self) -> str:
        """`a sample of 200,000 of 1,000,000 tokens`, or `all 80,331 tokens`."""
        if self.is_sample:
            return f"a sample of {self.counted:,} of {self.total:,} tokens"
        return f"all {self.total:,} tokens"


@dataclass(frozen=True)
class IndexMeta:
    """What is known about a whole index."""

    sae_id: str
    model_id: str
    layer: str
    n_features: int
    n_tokens: int  # outliers left out
    n_documents: int
    built_at: float  # unix seconds
    sources: tuple[dict[str, Any], ...]  # runs and their parts
    schema_version: int
    edges: tuple[float, ...]  # of every feature's histogram
    labels: tuple[str, ...]
    bands: int  # quantile bands below the top
    cofiring: CofiringTokens
    other: dict[str, Any]  # all other entries of the table `meta`
    # Of an SAE over several layers: their names, and where each feature reads one of them the
    # number of the first feature of each.
    layers: tuple[str, ...] = ()
    first_features: tuple[int, ...] = ()


@dataclass(frozen=True)
class FeatureRow:
    """One row of the table of features."""

    feature: int
    fires: int  # 0: never fired on the indexed tokens
    density: float
    max_act: float
    mean_act: float  # over firings
    concept: str | None  # its most confident name
    top_label: str | None  # the label it predicts best; None below LEAST_AUROC
    top_auroc: float | None  # of its best label on held-out documents, also below LEAST_AUROC
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of columns asked for
    proposed: str = ""  # the name proposed for it, where it has none
    explainer: str = ""  # the chat model that `proposed` is from; empty: without one
    detection: float | None = None  # of that, where it was scored
    accepted: bool = False  # whether `concept` is that name, so that its scores are of it

    def __post_init__(self) -> None:
        if not is_telling(self.top_auroc):
            object.__setattr__(self, "top_label", None)

    @property
    def meaning(self) -> str:
        """Its name, else the one proposed for it, else the label that it predicts; or nothing."""
        return self.concept or self.proposed or self.top_label or ""


def proposed_names(rows: Iterable[FeatureRow]) -> dict[int, tuple[str, float]]:
    """The names proposed for features without one, each with its score: an AUROC, or that of
    chance, 0.5, where it was not scored. The rows are read with `score` in `more`."""
    found: dict[int, tuple[str, float]] = {}
    for row in rows:
        if row.proposed and not row.concept:
            score = row.detection if row.explainer else row.more.get("score")
            known = score if score is not None and math.isfinite(score) else 0.5
            found[row.feature] = row.proposed, round(float(known), 2)
    return found


def auroc_text(auroc: float, digits: int = 2) -> str:
    """An AUROC with `digits` decimals, and with one more where these would make it perfect."""
    text = f"{auroc:.{digits}f}"
    if auroc < 1 <= float(text):
        scale = 10 ** (digits + 1)
        return f"{math.floor(auroc * scale) / scale:.{digits + 1}f}"
    return text


def is_telling(auroc: float | None) -> bool:
    """Whether a label of this held-out AUROC may be shown as the meaning of a feature."""
    return auroc is not None and auroc >= LEAST_AUROC


@dataclass(frozen=True, slots=True)
class Concept:
    """One name of one feature. The app holds tens of thousands."""

    sae_id: str
    feature: int
    name: str
    confidence: float  # 0 to 1
    note: str
    tags: tuple[str, ...]
    source: str  # who named it: user, demo, import, text-tracking, ...
    created: float  # unix seconds
    updated: float

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Neighbour(NamedTuple):
    """A feature near another one by decoder cosine."""

    feature: int
    cosine: float


class Coactivation(NamedTuple):
    """A feature that co-activates with another one."""

    feature: int
    jaccard: float  # of the two sets of tokens
    # Tokens on which both fire; a tuple's own `count` is nothing that anybody asks here.
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class LabelScore:
    """How well a feature predicts one label of documents."""

    label: str
    auroc_train: float | None  # only for choosing; None where one class is empty
    auroc: float | None  # held-out documents
    mean_act: float
    lift: float | None  # None where it fires on no training document

    @property
    def auroc_heldout(self) -> float | None:
        """`auroc` by the name of its column in the index."""
        return self.auroc


@dataclass(frozen=True)
class Proposal:
    """One proposed name, with what it rests on."""

    feature: int
    name: str  # empty where nothing stands out
    kind: str  # of catalogue.KINDS
    score: float | None  # AUROC of the name's rule on documents that naming did not see
    chance: float | None  # the same for the name of another feature
    hits: float | None  # share of its activation on which a part of the rule holds
    false_alarms: float | None  # share of other tokens on which one holds
    firings: int  # on which it was scored
    words: tuple[str, ...]  # on which it fires most beyond chance
    around: tuple[str, ...]  # that occur around its firings beyond chance


# The scores of an explanation by which features can be sorted and asked for.
ASKED_FOR = ("detection", "fuzzing")
# All of them by their fields, as they are called where they are listed.
SCORES: dict[str, str] = {
    "detection": "detection",
    "fuzzing": "fuzzing",
    "shuffled": "shuffled",
    "intruder": "intruder",
    "nearness": "nearness",
    "nearness_shuffled": "nearness shuffled",
}


@dataclass(frozen=True)
class Explanation(JsonRecord):
    """What a chat model says that a feature fires on; scores are balanced accuracies unless they
    say otherwise, None where they were not measured."""

    feature: int
    text: str
    explainer: str  # the model
    seed: int  # that parted the documents
    scored: bool  # also where there were too few texts for a score
    detection: float | None = None
    detection_interval: float | None = None
    fuzzing: float | None = None
    fuzzing_interval: float | None = None
    shuffled: float | None = None  # detection with the explanation of another feature
    intruder: float | None = None  # an accuracy without the explanation, .2 by chance
    intruder_interval: float | None = None
    nearness: float | None = None  # the AUROC of nearness to it, by an embedding model
    nearness_interval: float | None = None
    nearness_shuffled: float | None = None  # with the explanation of another feature
    embedded_by: str = ""  # the embedding model
    endpoint: str = ""  # a digest of its address; empty for a model of this machine
    made: float = 0.0  # unix seconds
    index_built_at: float = 0.0  # of the index that it was made from
    weights: str = ""  # of the SAE, as that index says

    def interval(self, score: str) -> str:
        """` ± 0.05`, half of the 95 percent interval of one of SCORES; nothing where it is not
        known."""
        half = getattr(self, f"{score}_interval", None)
        return "" if half is None else f" ± {half:.2f}"


class LayerNorm(NamedTuple):
    """How long the decoder row of a feature is in one of several layers."""

    layer: str
    norm: float  # of a crosscoder in units of the layer's activations
    relative: float  # to the layer in which it is longest


class OfTwoModels(NamedTuple):
    """Which of two models a crosscoder's feature is of, by latent scaling."""

    origin: str  # shared, base, tuned or unclear
    relative_norm: float
    nu_reconstruction: float
    nu_error: float

    def words(self) -> str:
        """In a sentence: the origin, then the figures that say so."""
        return (
            f"{IN_WORDS[self.origin]}: relative norm {self.relative_norm:.2f}, nu "
            f"{self.nu_reconstruction:.2f} of the reconstruction, {self.nu_error:.2f} of the error"
        )


@dataclass(frozen=True)
class FeatureDetail:
    """Everything about one feature except its top activations."""

    row: FeatureRow
    std_act: float
    decoder_norm: float
    encoder_decoder_cosine: float | None  # None for a transcoder
    skew: float | None  # of the effect on the logits
    kurtosis: float | None
    map: tuple[float, float]
    histogram: tuple[int, ...]
    edges: tuple[float, ...]  # one more than there are bins
    promoted: tuple[tuple[str, float], ...]  # token, effect on its logit
    suppressed: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...]
    coactivations: tuple[Coactivation, ...]
    cofiring: CofiringTokens  # the tokens that `coactivations` were counted over
    labels: tuple[LabelScore, ...]  # first the one chosen on training documents, then by AUROC
    concepts: tuple[Concept, ...]  # most confident first
    proposal: Proposal | None = None  # a name for it, where names were proposed
    explanation: Explanation | None = None  # by a chat model
    layer: str = ""  # that it is of; empty where an index of before does not say
    # Of an SAE over several layers: those that it writes to; and why the index does not say which
    # layer is its own, where it does not.
    several: bool = False
    written: tuple[LayerNorm, ...] = ()
    why_no_layer: str = ""
    models: OfTwoModels | None = None  # of a crosscoder of two models
    built_at: float = 0.0  # of the index

    @property
    def explained_on(self) -> str:
        """Of which index the explanation is, where it is an earlier one: `an earlier index (date)`;
        else empty."""
        found = self.explanation
        if found is None or found.index_built_at in (0.0, self.built_at):
            return ""
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.index_built_at))
        return f"an earlier index ({moment})"


@dataclass(frozen=True)
class Example:
    """One token on which a feature fires, with its context."""

    document: int
    position: int  # of the token in its document
    activation: float
    window_start: int  # position of tokens[0]
    tokens: list[str]
    acts: list[float]  # the feature's activation on each of `tokens`
    text: str  # the whole document
    label: str | None
    seen: str | None = None  # the document as the model saw it; None: `text`
    begin: int = 0  # characters of that before tokens[0]

    @property
    def before(self) -> str:
        """The document up to the window."""
        return self._document[: self.begin]

    @property
    def after(self) -> str:
        """The document from the end of the window on."""
        return self._document[self.begin + sum(map(len, self.tokens)) :]

    @property
    def _document(self) -> str:
        return self.text if self.seen is None else self.seen


@dataclass(frozen=True)
class TextFeature:
    """A feature that is among the strongest of documents that contain a text."""

    row: FeatureRow
    documents: int  # of those that contain the text
    strength: float  # its activation there as a share of its maximum anywhere, on average


@dataclass(frozen=True)
class FeatureFilter:
    """Conditions, all of which a feature must meet; None sets no condition."""

    alive: bool | None = None  # fires at all
    named: bool | None = None
    has_note: bool | None = None
    tag: str | None = None
    label: str | None = None  # its best label is this one, at LEAST_AUROC or above
    min_auroc: float | None = None  # of its best label, on held-out documents
    min_density: float | None = None
    max_density: float | None = None
    min_max_act: float | None = None

    def __post_init__(self) -> None:
        SHARE.check(self.min_auroc, "the least AUROC")
        SHARE.check(self.min_density, "the least density")
        SHARE.check(self.max_density, "the greatest density")
        REAL.check(self.min_max_act, "the least maximum")
