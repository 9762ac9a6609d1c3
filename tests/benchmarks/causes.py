"""Whether causes are causes: attribution on a workspace whose texts have labels.

    python tests/benchmarks/causes.py WORKSPACE [--sae ID] [--prompts 8] [--seed 0]
        [--target centred] [--places random] [--labels A B]

For every label, the feature that tells it (`detectors_of`, from training documents, the one that
steering raises) should be a cause of its words. Held-out documents of the label are cut before one
of its five most typical words, where the model gives that word's first token a probability of 0.1
or more: at a place that is drawn, one a document. The surest places, for comparison, are those
where the word before leaves no choice (per cent, open court), so that little is left to the topic.

A row has the rank of the feature among the causes (the median over the prompts), the share of
prompts in which it is among the first five, the same share for the features of the other labels
that fire on the prompt and for a random one that does, the rank correlation of predicted and
measured effects over the top 20, and the faithfulness of these beside that of as many random
features. A label passes when the median rank is at most five.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.attribution.attribute import attribute, strongest
from mi_crow.mechanistic.attribution.passes import gradient, graph_pass
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Kind, Target
from mi_crow.mechanistic.explain.words import Corpus, read_corpus
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure.aims.detectors import detectors_of
from mi_crow.store.workspace import Workspace
from tests.benchmarks.explain import typical_words
from tests.benchmarks.rows import Row, write_report

_TOP, _FIRST = 20, 5
_FIGURES = ("correlation", "faithfulness", "random_faithfulness")
_LEAST_BEFORE, _LONGEST = 12, 512  # tokens of a prompt
_LEAST_PROBABILITY = 0.1  # that the model gives to the word
_KINDS: dict[str, Kind] = {
    "centred": "centred_logit",
    "logit": "logit",
    "log-prob": "log_probability",
}


@dataclass(frozen=True)
class Prompt:
    """A text cut before a word of its label: token ids, and that of the word."""

    ids: list[int]
    next: int
    word: str
    probability: float


@dataclass(frozen=True)
class Found:
    """One prompt's answer."""

    rank: int  # of the label's feature, 1 the strongest; all features where it does not fire
    others_first: float  # share of the other labels' features that fire, among the first causes
    random_first: bool  # whether a random feature that fires is
    correlation: float | None
    faithfulness: float | None
    random_faithfulness: float | None

    @property
    def is_first(self) -> bool:
        return self.rank <= _FIRST


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--sae")
    parser.add_argument("--labels", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, default=8, help="for each label")
    parser.add_argument("--target", choices=tuple(_KINDS), default="centred")
    parser.add_argument("--places", choices=("random", "surest"), default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("causes.json"))
    options = parser.parse_args()
    rows = measure(options)
    for row in rows:
        print(row.line())
    write_report(options.out, vars(options), rows)
    return 0


def measure(options: argparse.Namespace) -> list[Row]:
    """Prints the table of the labels; returns the figures of all."""
    workspace = Workspace.open(options.workspace)
    sae_id = options.sae or workspace.list_saes()[0].sae_id
    store = FeatureStore.open(workspace, sae_id)
    site = SaeSite.of(load_for_work(workspace, sae_id, options.device))
    corpus = read_corpus(store.connection, options.seed)
    every_label = store.columns().labels
    told = {label: detectors_of(store, label, 1)[0] for label in every_label}
    labels = options.labels or every_label
    titles = ("rank", "top 5", "others", "random", "corr.", "faith.", "random")
    print(f"{'label':14} {'feature':>7} {' '.join(f'{one:>6}' for one in titles)}  words")
    passed, every = 0, []
    for label in labels:
        prompts = prompts_of(store, corpus, site.lm, label, options)
        found = [answer(site, one, told, label, options) for one in prompts]
        passed += median(one.rank for one in found) <= _FIRST
        every += found
        show(label, told[label], found, prompts)
    wanted = f">= {len(labels) * 3 // 4}"
    return [
        Row(f"labels whose feature is among the first {_FIRST}", passed, wanted),
        Row("  share of prompts", mean(one.is_first for one in every)),
        Row("  the other labels' features", mean(one.others_first for one in every)),
        Row("  a random feature that fires", mean(one.random_first for one in every)),
        Row("median rank correlation of the top 20", middle(every, "correlation"), ">= 0.8"),
        Row("median faithfulness of the top 20", middle(every, "faithfulness")),
        Row("  of 20 random features", middle(every, "random_faithfulness")),
    ]


def middle(found: Sequence[Found], name: str) -> float:
    """The median of the values that are known."""
    return median([value for one in found if (value := getattr(one, name)) is not None])


def show(label: str, feature: int, found: Sequence[Found], prompts: Sequence[Prompt]) -> None:
    """Prints the row of a label."""
    names = ("is_first", "others_first", "random_first")
    cells = [f"{median(one.rank for one in found):6.1f}"]
    cells += [f"{mean(getattr(one, name) for one in found):6.0%}" for name in names]
    cells += [f"{middle(found, name):6.2f}" for name in _FIGURES]
    words = ", ".join(dict.fromkeys(one.word for one in prompts))
    print(f"{label:14} {feature:7} {' '.join(cells)}  {words}", flush=True)


def prompts_of(
    store: FeatureStore, corpus: Corpus, lm: LanguageModel, label: str, options: Any
) -> list[Prompt]:
    """Places in held-out documents of the label where one of its words stands, which the model
    expects; one of each document, drawn or the surest."""
    rng = np.random.default_rng(options.seed)
    each = [found for found in _places(store, corpus, lm, label) if found]
    if options.places == "surest":
        surest = [max(found, key=lambda one: one.probability) for found in each]
        return sorted(surest, key=lambda one: -one.probability)[: options.prompts]
    drawn = [found[rng.integers(len(found))] for found in each]
    order = rng.permutation(len(drawn))[: options.prompts]
    return [drawn[place] for place in order.tolist()]


def _places(
    store: FeatureStore, corpus: Corpus, lm: LanguageModel, label: str
) -> Iterator[list[Prompt]]:
    """Of each held-out document."""
    words = np.flatnonzero(np.isin(corpus.texts, typical_words(corpus, label)))
    longest = lm.context or _LONGEST
    rows = store.connection.rows(
        "SELECT document FROM idx.stored_documents WHERE label = ? AND split = 'heldout' "
        "ORDER BY document",
        [label],
    )
    for (document,) in rows:
        start, end = corpus.starts[document : document + 2].tolist()
        here = corpus.words[start:end][:longest]
        begins = np.isin(here, words) & (np.roll(here, 1) != here)
        begins[:_LEAST_BEFORE] = False
        places = np.flatnonzero(begins)
        if not len(places):
            continue
        ids = corpus.tokens[start:end][:longest].astype(np.int64)
        with torch.no_grad():
            logits = lm.model(torch.from_numpy(ids)[None].to(lm.device), use_cache=False).logits[0]
        sure = logits[places - 1].float().softmax(-1)[range(len(places)), ids[places]]
        yield [
            Prompt(ids[:at].tolist(), int(ids[at]), str(corpus.texts[here[at]]), probability)
            for at, probability in zip(places.tolist(), sure.tolist(), strict=True)
            if probability >= _LEAST_PROBABILITY
        ]


def answer(site: SaeSite, prompt: Prompt, told: dict[str, int], label: str, options: Any) -> Found:
    """How the label's feature stands among the causes of the word."""
    encoding = site.lm.padded([prompt.ids])
    target = Target(_KINDS[options.target], len(prompt.ids) - 1, prompt.next)
    graph = graph_pass(site.lm, encoding, [site], target.position)
    [reading] = graph.readings
    [slope] = gradient(target.of_logits(graph.logits), [reading.y])
    size, own = site.sae.n_latents, told[label]
    order = [one.feature for one in strongest(reading, reading.effects(slope), size)]
    first = order[:_FIRST]
    check = attribute(site.lm, encoding, [site], target, top=_TOP, seed=options.seed).saes[0].check
    assert check is not None  # something fires on every prompt
    others = [one for name, one in told.items() if name != label and one in order]
    rng = np.random.default_rng(options.seed + len(prompt.ids))
    return Found(
        order.index(own) + 1 if own in order else size,
        mean(one in first for one in others) if others else 0.0,
        int(rng.choice(order)) in first,
        check.rank_correlation,
        check.faithfulness,
        check.random_faithfulness,
    )


if __name__ == "__main__":
    sys.exit(main())
