"""A small, consistent feature index over texts of our own, without a model or an SAE.

`make_index` writes what the index job would write; features fire on words, so that what a test
looks for can be read in the texts.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mi_crow.mechanistic.features.index.write import IndexWriter, equal_lists, lists, writing_index
from mi_crow.store.workspace import Workspace
from tests.helpers.index_reference import (
    Doc,
    auroc,
    coactivations,
    document_features,
    facts,
    firings,
    histogram,
    label_mean_and_lift,
    n_tokens,
    top_examples,
    window,
)

# Label -> words that its sentences are made of.
TOPICS = {
    "cooking": ("simmer", "butter", "garlic", "oven", "dough", "pepper"),
    "railways": ("platform", "signal", "engine", "carriage", "track", "guard"),
    "sailing": ("harbour", "mast", "keel", "anchor", "tide", "sail"),
    "weather": ("drizzle", "thunder", "breeze", "forecast", "frost", "cloud"),
}
_FRAMES = (
    "The {0} was near the {1} when the {2} began.",
    "Nobody had seen such a {0} since the old {1} went away.",
    "She wrote that the {0} and the {1} would be ready on Sunday.",
    "First the {0}, then the {1}, and last of all the {2}!",
)
# Text that a screen must show and never obey.
_AWKWARD = (
    "\x1b[31mThe mast is red\x1b[0m and the [bold]keel[/bold] is not.",
    "עוגן in the harbour, \u202eesrever\u202c tide 🦜 and a\ttab\rreturn.",
)
EDGES = [0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
WINDOW = 32
BANDS = 4


def make_index(
    workspace: Workspace,
    sae_id: str = "fixture-sae",
    *,
    n_features: int = 64,
    n_documents: int = 48,
    seed: int = 0,
) -> list[Doc]:
    """Makes an SAE folder (only its cfg.json) and its `features.duckdb`; gives its documents.

    Feature n < 24 fires on the n-th word of TOPICS; the others on random words, every eleventh of
    them on none. Each index is computed once per process and then copied; leave the documents as
    they are.
    """
    workspace.ensure()
    folder = workspace.saes_dir / sae_id
    if not folder.exists():
        workspace.make_sae_dir(sae_id, sae_id)
    _write_cfg(folder, n_features)
    return copy_index(workspace, sae_id, n_features=n_features, n_documents=n_documents, seed=seed)


def copy_index(
    workspace: Workspace, sae_id: str, *, n_features: int, n_documents: int, seed: int = 0
) -> list[Doc]:
    """Only the `features.duckdb` of `make_index`, in the folder of an SAE that is there."""
    folder = workspace.saes_dir / sae_id
    made, docs = _computed(sae_id, n_features, n_documents, seed)
    scratch = folder / ".tmp-copy"
    shutil.copyfile(Path(made.name) / "features.duckdb", scratch)
    scratch.replace(folder / "features.duckdb")
    return docs


@cache
def _computed(
    sae_id: str, n_features: int, n_documents: int, seed: int
) -> tuple[TemporaryDirectory[str], list[Doc]]:
    made = TemporaryDirectory(prefix="mi-crow-index-")
    rng = np.random.default_rng(seed)
    docs = documents(rng, n_features, n_documents)
    write_index(Path(made.name) / "features.duckdb", sae_id, docs, n_features, rng)
    return made, docs


def copy_workspace(make: Callable[[Workspace], None], workspace: Workspace) -> None:
    """Does to `workspace` what `make` does to an empty one, which it does once per process."""
    made = Path(_made(make).name)
    shutil.copytree(made / "workspace", workspace.root, dirs_exist_ok=True)


@cache
def _made(make: Callable[[Workspace], None]) -> TemporaryDirectory[str]:
    made = TemporaryDirectory(prefix="mi-crow-workspace-")
    make(Workspace.open(Path(made.name) / "workspace"))
    return made


def documents(rng: np.random.Generator, n_features: int, n_documents: int) -> list[Doc]:
    """Documents of a few sentences, one topic each, two of nine held out."""
    labels = list(TOPICS)
    vocabulary = [word for words in TOPICS.values() for word in words]
    texts, owners = [], []
    for number in range(n_documents):
        label = labels[number % len(labels)]
        sentences = [
            str(rng.choice(_FRAMES)).format(*rng.choice(TOPICS[label], 3, replace=False))
            for _ in range(int(rng.integers(1, 5)))
        ]
        if number in (5, 11):
            sentences.append(_AWKWARD[number == 11])
        texts.append(" ".join(sentences))
        owners.append(label)
    pieces = [re.findall(r"\s?\w+|\s?[^\w\s]|\s", text) for text in texts]
    ids = {piece: n for n, piece in enumerate(sorted({p for some in pieces for p in some}))}
    words = sorted({piece.strip().lower() for piece in ids if piece.strip().isalpha()})
    triggers: list[set[str]] = [{word} for word in vocabulary[:n_features]]
    for feature in range(len(triggers), n_features):
        dead = feature % 11 == 0
        triggers.append(set() if dead else set(rng.choice(words, int(rng.integers(1, 6)))))
    return [
        Doc(
            document=number,
            text=text,
            label=owners[number],
            split="heldout" if number % 9 in (7, 8) else "train",
            token_ids=[ids[piece] for piece in some],
            token_texts=list(some),
            kept=list(range(len(some))),
            acts=_activations(some, triggers, rng),
        )
        for number, (text, some) in enumerate(zip(texts, pieces, strict=True))
    ]


def _activations(
    pieces: list[str], triggers: list[set[str]], rng: np.random.Generator
) -> np.ndarray:
    """[tokens, features]: a feature fires on its words, weaker on the token after one."""
    acts = np.zeros((len(pieces), len(triggers)), dtype=np.float32)
    for at, piece in enumerate(pieces):
        for feature, words in enumerate(triggers):
            if piece.strip().lower() in words:
                acts[at, feature] = rng.uniform(1.0, 8.0)
                if at + 1 < len(pieces):
                    acts[at + 1, feature] = rng.uniform(0.25, 1.0)
    return acts


def write_index(
    path: Path, sae_id: str, docs: list[Doc], n_features: int, rng: np.random.Generator
) -> None:
    """Writes every table from the reference computation."""
    labels = sorted({doc.label for doc in docs if doc.label is not None})
    features = range(n_features)
    with writing_index(path) as writer:
        _write_documents(writer, docs, labels)
        best = _write_labels(writer, docs, features, labels)
        _write_features(writer, docs, features, best, rng)
        _write_examples(writer, docs, features, rng)
        _write_relations(writer, docs, n_features, rng)
        writer.write_meta(
            {
                "sae_id": sae_id,
                "model_id": "fixture",
                "layer": "model.layers.2",
                "n_features": n_features,
                "n_tokens": n_tokens(docs),
                "n_documents": len(docs),
                "built_at": time.time(),
                "sources": [{"run_id": "fixture", "parts": ["part-000-00000"]}],
                "histogram_edges": EDGES,
                "bands": BANDS,
            }
        )


def _write_documents(writer: IndexWriter, docs: list[Doc], labels: list[str]) -> None:
    lengths = np.array([len(doc.token_ids) for doc in docs])
    writer.append(
        "documents",
        {
            "document": [doc.document for doc in docs],
            "text": [doc.text for doc in docs],
            "label": [doc.label for doc in docs],
            "split": [doc.split for doc in docs],
            "token_ids": lists(np.concatenate([doc.token_ids for doc in docs]), lengths),
            "token_texts": [doc.token_texts for doc in docs],
        },
    )
    writer.append(
        "labels",
        {
            "label": labels,
            "documents": [sum(doc.label == label for doc in docs) for label in labels],
        },
    )
    rows = [(doc.document, *row) for doc in docs for row in document_features(doc, 32)]
    writer.append("document_features", _columns(("document", "feature", "max_act", "fires"), rows))


def _write_labels(
    writer: IndexWriter, docs: list[Doc], features: range, labels: list[str]
) -> dict[int, tuple[str, float]]:
    """Gives each firing feature's best label and its AUROC."""
    rows, best = [], {}
    for feature in features:
        scores = {label: auroc(docs, feature, label, "train") for label in labels}
        for label in labels:
            mean, lift = label_mean_and_lift(docs, feature, label)
            heldout = auroc(docs, feature, label, "heldout")
            rows.append((feature, label, scores[label], mean, lift, heldout))
        known = {label: score for label, score in scores.items() if score is not None}
        if known and firings(docs, feature):
            top = max(known, key=lambda label: known[label])
            best[feature] = (top, known[top])
    names = ("feature", "label", "auroc", "mean_act", "lift", "auroc_heldout")
    writer.append("feature_labels", _columns(names, rows))
    return best


def _write_features(
    writer: IndexWriter,
    docs: list[Doc],
    features: range,
    best: dict[int, tuple[str, float]],
    rng: np.random.Generator,
) -> None:
    found = [facts(docs, feature) for feature in features]
    n = len(features)
    writer.append(
        "features",
        {
            "feature": list(features),
            **{
                name: [getattr(one, name) for one in found]
                for name in ("fires", "density", "max_act", "mean_act", "std_act")
            },
            "decoder_norm": np.ones(n),
            "encoder_decoder_cosine": rng.uniform(0.5, 1.0, n),
            "histogram": equal_lists(
                np.array([histogram(docs, f, EDGES) for f in features], dtype=np.int32)
            ),
            "skew": rng.normal(size=n),
            "kurtosis": rng.normal(size=n),
            "map_x": rng.normal(size=n),
            "map_y": rng.normal(size=n),
            "top_label": [best[f][0] if f in best else None for f in features],
            "top_auroc": [best[f][1] if f in best else None for f in features],
        },
    )


def _write_examples(
    writer: IndexWriter, docs: list[Doc], features: range, rng: np.random.Generator
) -> None:
    rows, acts = [], []
    by_number = {doc.document: doc for doc in docs}
    for feature in features:
        found = {0: top_examples(docs, feature, 20)}
        values = sorted((value for value, _, _ in firings(docs, feature)), reverse=True)
        for band in range(1, BANDS + 1):
            quarter = values[len(values) * (band - 1) // BANDS : len(values) * band // BANDS]
            inside = [one for one in firings(docs, feature) if one[0] in quarter]
            order = rng.permutation(len(inside))[:5]
            found[band] = [inside[n] for n in order]
        for band, examples in found.items():
            for rank, (value, document, position) in enumerate(examples):
                start, window_acts = window(by_number[document], feature, position, WINDOW)
                rows.append((feature, band, rank, document, position, value, start))
                acts.append(window_acts)
    names = ("feature", "band", "rank", "document", "position", "activation", "window_start")
    flat = np.array([act for some in acts for act in some], dtype=np.float32)
    columns = _columns(names, rows)
    writer.append("examples", columns | {"acts": lists(flat, np.array([len(a) for a in acts]))})


def _write_relations(
    writer: IndexWriter, docs: list[Doc], n_features: int, rng: np.random.Generator
) -> None:
    tokens = {i: t for doc in docs for i, t in zip(doc.token_ids, doc.token_texts, strict=True)}
    writer.append(
        "tokens", {"token_id": sorted(tokens), "token": [tokens[i] for i in sorted(tokens)]}
    )
    logits, neighbours, together = [], [], []
    directions = rng.normal(size=(n_features, 16))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = directions @ directions.T
    for feature in range(n_features):
        chosen = rng.choice(sorted(tokens), 20, replace=False)
        for sign, ids in ((1, chosen[:10]), (-1, chosen[10:])):
            for rank, token_id in enumerate(ids):
                logits.append((feature, sign, rank, int(token_id), sign * (3.0 - 0.2 * rank)))
        order = [int(o) for o in np.argsort(-cosines[feature], kind="stable") if o != feature]
        for rank, other in enumerate(order[:10]):
            neighbours.append((feature, rank, other, float(cosines[feature, other])))
        for rank, (other, both, jaccard) in enumerate(coactivations(docs, feature, 10)):
            together.append((feature, rank, other, both, jaccard))
    writer.append("logits", _columns(("feature", "sign", "rank", "token_id", "value"), logits))
    writer.append("neighbours", _columns(("feature", "rank", "other", "cosine"), neighbours))
    names = ("feature", "rank", "other", "count", "jaccard")
    writer.append("coactivations", _columns(names, together))


def _columns(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: [row[n] for row in rows] for n, name in enumerate(names)}


def _write_cfg(folder: Path, n_features: int) -> None:
    own = {"layer": "model.layers.2", "point": "resid_post.2", "run_id": "fixture"}
    metadata = {"model_name": "fixture", "hook_name": "model.layers.2", "mi_crow": own}
    cfg = {"architecture": "topk", "d_in": 16, "d_sae": n_features, "k": 8, "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(cfg))
