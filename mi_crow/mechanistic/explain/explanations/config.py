"""The configuration of explanations by a chat model; plain data."""

import hashlib
import os
from dataclasses import dataclass
from typing import ClassVar

from mi_crow.bounds import COUNT, SEED, SIZE, Limits, check_fields
from mi_crow.errors import UserError

LOCAL = "local:"
EXPLAINER, EMBEDDINGS = "explainer", "embeddings"  # judges
MOST_PARALLEL = 64
ANSWER_S = 2.0  # that an answer takes, where it must be said before any was given


@dataclass(frozen=True)
class ExplanationsConfig:
    """Which features of an SAE are explained, by whom, and whether that is scored.

    explainer: the address of an OpenAI-compatible endpoint, or `local:MODEL` for a chat model of
        the hub or a folder, which then runs in the job itself.
    model: its name at the endpoint.
    where: a query (see `query_language`); of what it finds, the first `most` are explained.
    scores: whether explanations are scored on other documents as well.
    judge: who scores them: `explainer`, by detection, fuzzing and intruders, or
        `embeddings:FOLDER`, a model2vec folder, by how near the texts are to the explanation.
    parallel: how many questions are on their way at once; per_minute: how many start in a minute.
    """

    sae_id: str
    explainer: str
    model: str = ""
    where: str = ""
    most: int = 100
    scores: bool = True
    judge: str = EXPLAINER
    parallel: int = 4
    per_minute: int | None = None
    seed: int = 0
    device: str = "auto"

    LIMITS: ClassVar[Limits] = {
        "most": ("the number of features", COUNT),
        "per_minute": ("the requests a minute", SIZE),
        "seed": ("the seed", SEED),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.parallel <= MOST_PARALLEL:
            raise UserError(f"the requests at once must be 1 to {MOST_PARALLEL}")
        if self.judge != EXPLAINER and not self.embeddings:
            raise UserError(
                f"the judge {self.judge!r:.80} is not known",
                hint=f"use {EXPLAINER} or {EMBEDDINGS}:FOLDER, a model2vec folder",
            )

    @property
    def is_local(self) -> bool:
        return self.explainer.startswith(LOCAL)

    @property
    def embeddings(self) -> str:
        """The model2vec folder that scores explanations; empty where the explainer does."""
        return self.judge[len(EMBEDDINGS) + 1 :] if self.judge.startswith(f"{EMBEDDINGS}:") else ""

    @property
    def endpoint(self) -> str:
        """A digest of the explainer's address, which is nobody else's business; empty where it runs
        in the job."""
        if self.is_local:
            return ""
        return hashlib.sha256(self.explainer.rstrip("/").encode()).hexdigest()[:12]

    @property
    def named(self) -> str:
        """Who explains, in a word or two."""
        return self.explainer.removeprefix(LOCAL) if self.is_local else self.model


def judge_named(text: str) -> str:
    """The judge that a person names, with the whole path of its folder; for `embeddings` alone
    that is the folder of the user's settings. Raises UserError where none is set."""
    word, _, folder = text.partition(":")
    if word != EMBEDDINGS:
        return text
    if not folder:
        from mi_crow.store.settings import UserSettings

        folder = UserSettings.load().text("semantic.model") or ""
    if not folder:
        raise UserError(
            "no embedding model is known",
            hint="name a model2vec folder, embeddings:FOLDER, "
            "or mi-crow config set semantic.model FOLDER",
        )
    return f"{EMBEDDINGS}:{os.path.abspath(os.path.expanduser(folder))}"
