"""A feature index and a model session that make up their answers, always the same ones.

For pictures and for what the screens do with answers; what the answers are worth is tested on the
real index and the real session.
"""

import random
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.mechanistic.features.query_language import FeatureQuery
from mi_crow.mechanistic.features.records import (
    Coactivation,
    CofiringTokens,
    Example,
    FeatureDetail,
    FeatureFilter,
    FeatureRow,
    IndexMeta,
    LabelScore,
    Neighbour,
)
from tui.app import MiCrowApp
from tui.messages import SaeChanged

N_FEATURES = 2048
N_TOKENS = 80_331
NAMES = {
    3: "sails and masts",
    17: "first words of a letter",
    101: "numbers in recipes",
    1203: "harbours",
}
BANDS = 4


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


TOPICS = _words("sailing cooking weather railways chess gardening banking music medicine law")
NOUNS = _words("harbour mast sail keel wind tide rope deck crew anchor storm reef jib hull captain")
VERBS = _words("waits turns holds drifts settles creaks answers follows crosses leaves")
JOINTS = _words("under over against behind before with near beyond")
KINDS = _words("old bright slow narrow quiet early heavy long")
WORDS = [*NOUNS, *VERBS, *JOINTS, *KINDS]
META = IndexMeta(
    "demo-topk",
    "sample",
    "model.layers.2",
    N_FEATURES,
    N_TOKENS,
    1024,
    0.0,
    (),
    1,
    (),
    (),
    BANDS,
    CofiringTokens(N_TOKENS, N_TOKENS),
    {},
)


class FabricatedIndex:
    """Answers like a FeatureStore. Every 37th feature never fires."""

    def __init__(self, annotations: Any = None) -> None:
        self._annotations = annotations
        self.names = dict(NAMES) if annotations is None else {}
        self.refresh_concepts()

    def meta(self) -> IndexMeta:
        return META

    def changed_on_disk(self) -> bool:
        return False

    def refresh_concepts(self) -> None:
        if self._annotations is not None:
            found = self._annotations.concepts("demo-topk")
            self.names = {concept.feature: concept.name for concept in found}

    def concepts(self) -> dict:
        return {}

    def find(
        self, query: FeatureQuery, sort: str | None, descending: bool, flt: FeatureFilter
    ) -> np.ndarray:
        by = "density" if sort in (None, "relevance") else sort
        return np.array(self.ids(by, descending, query.search, flt), dtype=np.int32)

    def ids(
        self,
        sort: str = "density",
        descending: bool = True,
        search: str | None = None,
        flt: FeatureFilter | None = None,
    ) -> list[int]:
        rows = [self._row(feature) for feature in range(N_FEATURES)]
        if search:
            rows = [row for row in rows if search in f"{row.concept} {row.top_label}"]
        if flt is not None and flt.alive:
            rows = [row for row in rows if row.fires]
        if flt is not None and flt.named is not None:
            rows = [row for row in rows if bool(row.concept) == flt.named]
        known = [row for row in rows if getattr(row, sort) is not None]
        known.sort(key=lambda row: (getattr(row, sort), -row.feature), reverse=descending)
        rest = [row for row in rows if getattr(row, sort) is None]
        return [row.feature for row in (*known, *rest)]

    def rows(self, ids: Sequence[int], more: Sequence[str] = ()) -> list[FeatureRow]:
        return [replace(self._row(f), more=self._more(f, more)) for f in ids]

    def _more(self, feature: int, names: Sequence[str]) -> dict[str, Any]:
        """What the columns `names` say; only of one that is not named nothing is known."""
        if not names:
            return {}
        detail = self.detail(feature)
        known = {
            "norm": detail.decoder_norm,
            "cosine": detail.encoder_decoder_cosine,
            "nearest": detail.neighbours[0].cosine,
            "tokens": tuple(token for token, _ in detail.promoted[:5]),
            "tags": ("checked",) if feature % 3 == 0 and detail.row.concept else (),
        }
        return {name: known.get(name) for name in names}

    def _row(self, feature: int) -> FeatureRow:
        name = self.names.get(feature)
        row = _unnamed(feature)
        return row if name is None else replace(row, concept=name)

    def detail(self, feature: int) -> FeatureDetail:
        if not 0 <= feature < N_FEATURES:
            raise NotFoundError(f"feature {feature} not found", hint=f"there are {N_FEATURES}")
        dice, row = random.Random(feature), self._row(feature)

        def tokens(first: float, step: float) -> tuple[tuple[str, float], ...]:
            return tuple((f" {w}", first + n * step) for n, w in enumerate(dice.sample(WORDS, 12)))

        others = [dice.randrange(N_FEATURES) for _ in range(20)]
        return FeatureDetail(
            row=row,
            std_act=1.0,
            decoder_norm=1.0,
            encoder_decoder_cosine=0.8,
            skew=0.0,
            kurtosis=0.0,
            map=(0.0, 0.0),
            histogram=tuple(int(row.fires * 2 ** -(n / 3)) for n in range(32)),
            edges=tuple(n * row.max_act / 32 for n in range(33)),
            promoted=tokens(3.0, -0.2),
            suppressed=tokens(-2.0, 0.15),
            neighbours=tuple(Neighbour(f, 0.9 * 0.9**n) for n, f in enumerate(others[:10])),
            coactivations=tuple(
                Coactivation(f, 0.4 * 0.9**n, 900 - 80 * n) for n, f in enumerate(others[10:])
            ),
            cofiring=META.cofiring,
            labels=tuple(
                LabelScore(topic, 0.97 - 0.1 * n, 0.95 - 0.1 * n, 2.0, 3.0)
                for n, topic in enumerate(dice.sample(TOPICS, 3))
            ),
            concepts=(),
        )

    def best_labels(self, features: Sequence[int]) -> dict[int, LabelScore]:
        return {feature: self.detail(feature).labels[0] for feature in features}

    def examples(self, feature: int, band: int = 0, limit: int = 20) -> list[Example]:
        row = self._row(feature)
        if not row.fires or band > BANDS:
            return []
        count = min(limit, 20 if band == 0 else 5)
        return [_example(feature, band, rank, row.max_act) for rank in range(count)]


@cache
def _unnamed(feature: int) -> FeatureRow:
    dice = random.Random(feature)
    fires = 0 if feature % 37 == 5 else int(N_TOKENS * 10 ** dice.uniform(-4, -0.8))
    labelled = feature % 5 != 0
    return FeatureRow(
        feature,
        fires,
        fires / N_TOKENS,
        dice.uniform(4, 30) if fires else 0.0,
        dice.uniform(0.5, 3) if fires else 0.0,
        None,
        dice.choice(TOPICS) if labelled else None,
        dice.uniform(0.5, 1) if labelled else None,
    )


def _example(feature: int, band: int, rank: int, top: float) -> Example:
    dice = random.Random(feature * 1000 + band * 100 + rank)
    tokens = _sentences(dice, 65)
    activation = top * (1 - 0.02 * rank) / (1 + band)
    acts = [0.0 if dice.random() < 0.8 else activation * dice.random() * 0.8 for _ in tokens]
    acts[32] = activation
    return Example(
        dice.randrange(4000),
        36,
        activation,
        4,
        tokens,
        acts,
        "".join(tokens).strip(),
        dice.choice(TOPICS),
    )


def _sentences(dice: random.Random, count: int) -> list[str]:
    """Sentences as tokens; some words are cut in two, and a line ends now and then."""
    tokens: list[str] = []
    while len(tokens) < count:
        first, second = dice.sample(NOUNS, 2)
        words = ["The", first, dice.choice(VERBS), dice.choice(JOINTS), "the"]
        for word in [*words, dice.choice(KINDS), second]:
            cut = len(word) > 5 and dice.random() < 0.3
            tokens += [f" {word[:4]}", word[4:]] if cut else [f" {word}"]
        tokens += [".", "\n"] if dice.random() < 0.2 else ["."]
    return tokens[:count]


class FabricatedSession:
    """Answers like a SessionClient. `hold` makes a generation wait until it is interrupted."""

    BASELINE = " is quiet this morning. The clerk opens the ledger and counts the bills twice."
    STEERED = " is full of sails this morning. The crew hauls the anchor and the mast creaks."

    def __init__(self) -> None:
        self.alive = True
        self.hold = False
        self.error: MiCrowError | None = None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._interrupted = threading.Event()

    def start(self) -> None:
        self.alive = True

    def close(self) -> None:
        self._interrupted.set()

    def interrupt(self, request_id: str | None = None) -> None:
        self._interrupted.set()

    def call(self, op: str, **params: Any) -> dict[str, Any]:
        self.asked.append((op, params))
        if op == "load":
            return {
                "model_id": "sample",
                "layer": "model.layers.2",
                "device": "cpu",
                "n_layers": 6,
            }
        if self.error is not None:
            raise self.error
        return _inspection(params["text"])

    def request(self, op: str, **params: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((op, params))
        if self.error is not None:
            raise self.error
        texts = {"baseline": self.BASELINE if params["baseline"] else "", "steered": self.STEERED}
        written = {"baseline": "", "steered": ""}
        for side, text in texts.items():
            for piece in re.findall(r" \S+", text):
                written[side] += piece
                yield {"event": "token", "side": side, "text": piece}
                if self.hold:
                    self._interrupted.wait(10)
                    yield {"event": "result", **written, "metrics": {}, "stopped": True}
                    return
        yield {
            "event": "result",
            **texts,
            "metrics": {"tokens_s": 41.3, "kl": 0.82},
            "stopped": False,
            "prompt_tokens": len(params["prompt"].split()) + 1,
            "bos_added": True,
        }


def _inspection(text: str) -> dict[str, Any]:
    """Pieces of words as tokens; the first real one is an outlier."""
    tokens = ["<s>", *re.findall(r"\s?\w{1,6}|\s?[^\w\s]|\n", text)]
    dice = random.Random(len(text))
    features = []
    for feature in (3, 1203, 17, 101, 44, 512, 700, 812, 33, 1999, 1500):
        acts = [0.0 if dice.random() < 0.7 else 12 * dice.random() ** 2 for _ in tokens]
        features.append({"feature": feature, "max_act": max(acts), "acts": acts})
    features.sort(key=lambda one: -one["max_act"])
    per_token = [
        sorted(
            ([one["feature"], one["acts"][n]] for one in features if one["acts"][n]),
            key=lambda pair: -pair[1],
        )
        for n in range(len(tokens))
    ]
    return {
        "tokens": tokens,
        "special": [n == 0 for n in range(len(tokens))],
        "outlier": [n == 1 for n in range(len(tokens))],
        "features": features,
        "per_token": per_token,
    }


def fabricate(app: MiCrowApp, *, index: bool = True, named: bool = False) -> FabricatedSession:
    """Gives a running app the made-up index and session. `named`: concepts of the workspace."""
    session = FabricatedSession()
    app.context._session = session  # type: ignore[assignment]
    if index:
        annotations = app.context.annotations if named else None
        app.context.features = FabricatedIndex(annotations)  # type: ignore[assignment]
        app.context.publish(SaeChanged(app.context.sae_id, ready=True))
    return session
