"""Names without a language model: how fast for a wide index, how true for a real one.

    python tests/benchmarks/explain.py [--features 131072] [--workspace W --sae S ...]

speed    naming all features of a synthetic index (1M tokens), and a part of them
truth    for each index of `--sae`: the median AUROC of the names of features that fire 50 times or
         more, on documents that naming did not see, beside that of other features' names; for each
         label whether the name of its best feature contains the label or one of its five most
         typical words (wanted of the topics of the sample corpus); thirty names, drawn by the seed

The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.evidence import log_odds
from mi_crow.mechanistic.explain.job import explain_features
from mi_crow.mechanistic.explain.words import NO_WORD, Corpus, read_corpus
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.benchmarks.index_queries import SAE, synthetic_workspace
from tests.benchmarks.rows import Row, write_report
from tests.benchmarks.synthetic_index import Size

_TYPICAL = 5  # words of each label
_SHOWN = 30  # names


def speed(features: int) -> list[Row]:
    """Seconds for all features of a synthetic index."""
    workspace = synthetic_workspace(Size(features))
    used = time.process_time()
    result = explain_features(workspace, ExplainConfig(SAE))
    used = time.process_time() - used
    return [
        Row(f"name {features:,} features, s", result.seconds, "<= 60"),
        Row("  processor, s", used),
        Row("  score of names of random features", result.score or 0.0),
    ]


def truth(workspace: Workspace, sae_id: str, seed: int) -> list[Row]:
    """How good the names of a real index are."""
    result = explain_features(workspace, ExplainConfig(sae_id, seed))
    store = FeatureStore.open(workspace, sae_id)
    corpus = read_corpus(store.connection, seed)
    found = [
        Row(f"{sae_id}: median AUROC of names", result.score or 0.0, ">= 0.80"),
        Row(f"{sae_id}:   of other features' names", result.chance or 1.0, "<= 0.55"),
        Row(f"{sae_id}:   features", result.scored),
    ]
    labels = store.columns().labels
    if labels:
        hits = sum(_says(store, corpus, label) for label in labels)
        limit = f">= {len(labels)}" if store.meta().model_id == "sample" else ""
        found.append(Row(f"{sae_id}: of {len(labels)} labels in names", hits, limit))
    fires = np.flatnonzero(store.columns().fires >= 50)
    rng = np.random.default_rng(seed)
    for feature in rng.choice(fires, min(_SHOWN, len(fires)), replace=False).tolist():
        proposal = store.detail(feature).proposal
        if proposal is not None:
            score = "-" if proposal.score is None else f"{proposal.score:.2f}"
            print(f"#{feature:<7} {score}  {proposal.kind:<12} {proposal.name}")
    return found


def _says(store: FeatureStore, corpus: Corpus, label: str) -> bool:
    """Whether the name of the label's best feature contains the label or a typical word of it."""
    best = int(store.ids(f"auroc:{label}")[0])
    proposal = store.detail(best).proposal
    name = proposal.name.casefold() if proposal is not None else ""
    said = any(word in name for word in (label.casefold(), *typical_words(corpus, label)))
    if not said:
        print(f"{label}: #{best} is {name!r}")
    return said


def typical_words(corpus: Corpus, label: str) -> list[str]:
    """The words that stand out in the documents of a label."""
    there = (corpus.labels == corpus.label_names.index(label))[corpus.document]
    size = len(corpus.texts)
    inside = np.bincount(corpus.words[there], minlength=size)
    overall = np.bincount(corpus.words, minlength=size) / len(corpus.words)
    z = log_odds(inside, np.full(size, int(there.sum())), overall, len(corpus.words))
    z[~corpus.is_name] = -np.inf
    z[NO_WORD] = -np.inf
    return [str(corpus.texts[word]) for word in np.argsort(-z)[:_TYPICAL].tolist()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=int, default=131_072, help="0: no synthetic index")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--sae", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explain.json"))
    options = parser.parse_args()
    found = speed(options.features) if options.features else []
    for sae_id in options.sae:
        found += truth(Workspace.open(options.workspace), sae_id, options.seed)
    for row in found:
        print(row.line())
    write_report(options.out, vars(options), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
