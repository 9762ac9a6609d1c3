"""What of an SAE goes to a hub repository, and the card that introduces it. Torch-free.

The files are those that other tools read (SAELens layout), with a README.md whose figures are those
of `evaluation.json` and `training.json`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.mechanistic.concepts.concept_files import FIELDS
from mi_crow.mechanistic.features.beside.explanations import EXPLANATIONS_NAME
from mi_crow.mechanistic.features.beside.proposals import PROPOSALS_NAME
from mi_crow.store.evaluation_file import EVALUATION_NAME, read_evaluation
from mi_crow.store.json_file import read_json
from mi_crow.store.workspace import SaeSummary

CARD_NAME = "README.md"
_WEIGHTS = ("cfg.json", "sae_weights.safetensors")
_BESIDE = ("training.json", EVALUATION_NAME)
_INDEX = ("features.duckdb", PROPOSALS_NAME, EXPLANATIONS_NAME)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TOP_CONCEPTS = 25
# What the card shows of the evaluation: key, name, digits.
_FIGURES = (
    ("fvu", "FVU", 4),
    ("explained_variance", "explained variance", 4),
    ("l0", "L0", 1),
    ("dead_share", "dead latents", 4),
    ("cosine", "cosine of the reconstruction", 4),
    ("ce_original", "cross-entropy of the model (nats)", 4),
    ("ce_reconstructed", "cross-entropy with the SAE (nats)", 4),
    ("loss_recovered", "loss recovered", 4),
    ("kl", "KL divergence (nats)", 4),
)
_SETTINGS = ("steps", "batch_size", "lr", "seed", "l1_lambda", "target_l0")


@dataclass(frozen=True)
class Upload:
    """One file of the repository: from the disk, or written for it."""

    name: str
    source: Path | bytes

    @property
    def bytes(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


def check_repository(name: str) -> None:
    """Raises UserError for what is not the name of a hub repository."""
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"{name!r} is not a repository", hint="write owner/name")


def uploads(
    sae: SaeSummary, concepts: Sequence[Concept], fires: Mapping[int, int], *, index: bool
) -> list[Upload]:
    """The files that are published of an SAE.

    `fires` has the firings of named features, by which the card orders them; `index` adds the
    feature index. Raises NotFoundError for an SAE without weights, or without an index that is
    asked for.
    """
    folder = sae.path
    for name in _WEIGHTS:
        if not (folder / name).is_file():
            raise NotFoundError(f"SAE {sae.sae_id!r} has no {name} in its folder")
    if index and not (folder / _INDEX[0]).is_file():
        raise NotFoundError(
            f"SAE {sae.sae_id!r} has no feature index", hint=f"mi-crow index --sae {sae.sae_id}"
        )
    names = [*_WEIGHTS, *(name for name in _BESIDE if (folder / name).is_file())]
    if index:
        names += [name for name in _INDEX if (folder / name).is_file()]
    found = [Upload(name, folder / name) for name in names]
    if concepts:
        rows = [{field: getattr(one, field) for field in FIELDS} for one in concepts]
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        found.append(Upload("concepts.json", f"{text}\n".encode()))
    return [Upload(CARD_NAME, card(sae, concepts, fires, index=index).encode()), *found]


def card(
    sae: SaeSummary, concepts: Sequence[Concept], fires: Mapping[int, int], *, index: bool
) -> str:
    """The README.md of a repository: what the SAE is, how good it is, what is named."""
    evaluation, _ = read_evaluation(sae.path)
    parts = [
        _front_matter(sae),
        f"# {_plain(sae.sae_id)}",
        f"A sparse autoencoder ({_plain(sae.architecture)}"
        f"{f', k = {sae.k}' if sae.k else ''}) of {sae.n_latents:,} latents on "
        f"`{_plain(sae.layer)}` ({sae.n_inputs:,} wide) of `{_plain(sae.model_id)}`.",
        "## Use",
        "```python\nfrom mi_crow.mechanistic.sae import load_sae\n\n"
        "sae = load_sae(folder)  # of the downloaded files; SAELens reads them as well\n```",
        "## Quality, on held-out text",
        _figures(evaluation),
        *_training(sae.path),
    ]
    if concepts:
        named = len({one.feature for one in concepts})
        parts += [
            "## Concepts",
            f"{named:,} of {sae.n_latents:,} features are named (`concepts.json`). Those that fire "
            "most:",
            _concepts(concepts, fires),
        ]
    if index:
        parts += ["## Feature index", "`features.duckdb` is what `mi-crow features` reads."]
    return "\n\n".join(parts) + "\n"


def _front_matter(sae: SaeSummary) -> str:
    lines = ["library_name: mi-crow", "tags:", "- sparse-autoencoder", "- interpretability"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", sae.model_id):
        lines.append(f"base_model: {sae.model_id}")
    return "\n".join(["---", *lines, "---"])


def _figures(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "Not evaluated."
    rows = [
        f"| {name} | {evaluation[key]:.{digits}f} |"
        for key, name, digits in _FIGURES
        if isinstance(evaluation.get(key), int | float)
    ]
    return "\n".join(["| figure | value |", "| --- | ---: |", *rows])


def _training(folder: Path) -> list[str]:
    """How it was trained, where that is known."""
    try:
        found = read_json(folder / "training.json")
    except (UserError, OSError):
        return []
    config = found.get("config") if isinstance(found, dict) else None
    if not isinstance(config, dict):
        return []
    settings = config.get("training")
    said = {name: config[name] for name in ("arch", "k") if config.get(name) is not None}
    if isinstance(settings, dict):
        said |= {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}
    result = found.get("result")
    if isinstance(result, dict) and isinstance(result.get("tokens"), int):
        said["tokens"] = f"{result['tokens']:,}"
    rows = [f"| {name} | {_plain(str(value))} |" for name, value in said.items()]
    return ["## Training", "\n".join(["| setting | value |", "| --- | --- |", *rows])]


def _concepts(concepts: Sequence[Concept], fires: Mapping[int, int]) -> str:
    ordered = sorted(concepts, key=lambda one: (-fires.get(one.feature, 0), one.feature))
    rows = [
        f"| {one.feature} | {_plain(one.name)} | {one.confidence:.2f} | "
        f"{fires.get(one.feature, '')} |"
        for one in ordered[:_TOP_CONCEPTS]
    ]
    head = ["| feature | name | confidence | tokens |", "| ---: | --- | ---: | ---: |"]
    return "\n".join([*head, *rows])


def _plain(text: str) -> str:
    """A text that Markdown and HTML show as it is, on one line."""
    words = " ".join(text.split())[:200]
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", words)
