"""A real index of 160 features for the app of a test, and a session that follows a script.

The index is written by the project's own writer and read by the real FeatureStore. The session
answers at once and waits when it is told to; the real one is tested in `tests/integration`.
"""

import random
import re
import threading
from collections.abc import Iterator
from typing import Any

from textual.pilot import Pilot

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.features.queries import FeatureStore
from tests.helpers.index_fixture import copy_index
from tui.app import MiCrowApp
from tui.messages import SaeChanged

SAE = "demo-topk"
N_FEATURES = 160
DEAD = 44
NAMES = {
    3: "sails and masts",
    17: "first words of a letter",
    101: "numbers in recipes",
    120: "harbours",
}


class ScriptedSession:
    """Answers like a SessionClient. `hold` makes a generation wait until it is interrupted."""

    BASELINE = " is quiet this morning. The clerk opens the ledger and counts the bills twice."
    STEERED = " is full of sails this morning. The crew hauls the anchor and the mast creaks."

    def __init__(self) -> None:
        self.alive = True
        self.hold = False
        self.error: MiCrowError | None = None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, dict[str, Any]] = {}  # of operations, by their names
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
        return self.answers.get(op) or _inspection(params["text"])

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
                    self._interrupted.wait(60)
                    yield {"event": "result", **written, "metrics": {}, "stopped": True}
                    return
        acting = [one for one in params["interventions"] if one.get("enabled", True)]
        targets = [one["target"].partition(":")[2] for one in acting]
        features = [int(one) for one in targets if one.isdecimal()]
        yield {
            "event": "result",
            **texts,
            "samples": [
                {
                    side: _reading(f"{text} Again." * (number > 0) or text, features, side)
                    for side, text in texts.items()
                    if text
                }
                for number in range(params.get("n", 1))
            ],
            "targets": [f"feature:{feature}" for feature in features],
            "metrics": {"tokens_s": 41.3, "kl": 0.82},
            "stopped": False,
            "prompt_tokens": len(params.get("prompt", "a question").split()) + 1,
            "bos_added": True,
        }


def _reading(text: str, features: list[int], side: str) -> dict[str, Any]:
    """What the session reads in one text; words are tokens."""
    tokens = re.findall(r" \S+", text)
    dice = random.Random(len(text))
    acts = [[max(0.0, 9 * dice.random() - 5) for _ in tokens] for _ in features]
    steered = {"kl": 0.82} if side == "steered" else {}
    return {
        "text": text,
        "tokens": tokens,
        "acts": acts,
        "perplexity": 21.4,
        "distinct_2": 0.97,
        **steered,
    }


def _inspection(text: str) -> dict[str, Any]:
    """Pieces of words as tokens; the first real one is an outlier."""
    tokens = ["<s>", *re.findall(r"\s?\w{1,6}|\s?[^\w\s]|\n", text)]
    dice = random.Random(len(text))
    features = []
    for feature in (3, 120, 17, 101, 43, 51, 70, 81, 34, 19, 150):
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


def session_of(pilot: Pilot) -> ScriptedSession:
    """The session that `give_index` gave the app."""
    assert isinstance(pilot.app, MiCrowApp)
    session = pilot.app.context._session
    assert isinstance(session, ScriptedSession)
    return session


def give_index(app: MiCrowApp, *, index: bool = True) -> ScriptedSession:
    """Gives a running app a scripted session and, unless told otherwise, the index of its SAE."""
    session = ScriptedSession()
    context = app.context
    context._session = session  # type: ignore[assignment]
    if index:
        copy_index(context.workspace, SAE, n_features=N_FEATURES, n_documents=24)
        context.features = FeatureStore.open(context.workspace, SAE, context.annotations)
        context.publish(SaeChanged(context.sae_id, ready=True))
    return session
