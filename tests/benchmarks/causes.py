"""Whether causes are causes: attribution on a workspace whose texts have labels.

    python tests/benchmarks/causes.py WORKSPACE [--sae ID] [--prompts 8] [--seed 0]

For every label its best feature should be a cause of its words. Held-out documents of the label
are cut before one of its five most typical words, and the logit of that word's first token is
attributed to all features. A row has the rank of the label's best feature among them (the median
over the prompts), the share of prompts in which it is among the first five, both for a random
feature that fires on the prompt too, the rank correlation of predicted and measured effects over
the top 20, and the faithfulness of these beside that of as many random features. A label passes
when the median rank is at most five.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.attribution.attribute import attribute, strongest
from mi_crow.mechanistic.attribution.passes import gradient, graph_pass
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.explain.words import Corpus, read_corpus
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.store.workspace import Workspace
from tests.benchmarks.explain import typical_words
from tests.benchmarks.rows import Row, write_report

_TOP, _FIRST = 20, 5
_RANKS = ("rank", "random_rank")
_FIGURES = ("correlation", "faithfulness", "random_faithfulness")
_LEAST_BEFORE, _LONGEST = 12, 512  # tokens of a prompt


@dataclass(frozen=True)
class Prompt:
    """A text cut before a word of its label: token ids, and that of the word."""

    ids: list[int]
    next: int
    word: str


@dataclass(frozen=True)
class Found:
    """One prompt's answer."""

    rank: int  # of the label's best feature, 1 the strongest; all features where it does not fire
    random_rank: int
    correlation: float | None
    faithfulness: float | None
    random_faithfulness: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--sae")
    parser.add_argument("--prompts", type=int, default=8, help="for each label")
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
    labels = store.columns().labels
    titles = ("rank", "random", "top 5", "random", "corr.", "faith.", "random")
    print(f"{'label':14} {'feature':>7} {' '.join(f'{one:>6}' for one in titles)}  words")
    passed, every = 0, []
    for label in labels:
        best = int(store.ids(f"auroc:{label}")[0])
        prompts = prompts_of(store, corpus, site.lm, label, options.prompts)
        found = [answer(site, one, best, options.seed + place) for place, one in enumerate(prompts)]
        passed += median(one.rank for one in found) <= _FIRST
        every += found
        show(label, best, found, prompts)
    among = mean(one.rank <= _FIRST for one in every)
    random = mean(one.random_rank <= _FIRST for one in every)
    wanted = f">= {len(labels) * 3 // 4}"
    return [
        Row(f"labels whose feature is among the first {_FIRST}", passed, wanted),
        Row("  share of prompts", among),
        Row("  share of prompts, a random feature that fires", random),
        Row("median rank correlation of the top 20", middle(every, "correlation"), ">= 0.8"),
        Row("median faithfulness of the top 20", middle(every, "faithfulness")),
        Row("  of 20 random features", middle(every, "random_faithfulness")),
    ]


def middle(found: Sequence[Found], name: str) -> float:
    """The median of the values that are known."""
    return median([value for one in found if (value := getattr(one, name)) is not None])


def show(label: str, feature: int, found: Sequence[Found], prompts: Sequence[Prompt]) -> None:
    """Prints the row of a label."""
    ranks = [median(getattr(one, name) for one in found) for name in _RANKS]
    shares = [mean(getattr(one, name) <= _FIRST for one in found) for name in _RANKS]
    figures = [middle(found, name) for name in _FIGURES]
    cells = [f"{value:6.1f}" for value in ranks] + [f"{value:6.0%}" for value in shares]
    cells += [f"{value:6.2f}" for value in figures]
    words = ", ".join(dict.fromkeys(one.word for one in prompts))
    print(f"{label:14} {feature:7} {' '.join(cells)}  {words}", flush=True)


def prompts_of(
    store: FeatureStore, corpus: Corpus, lm: LanguageModel, label: str, count: int
) -> list[Prompt]:
    """The places in held-out documents of the label where the model is surest of one of the label's
    words, which stands there; one of each document."""
    words = np.flatnonzero(np.isin(corpus.texts, typical_words(corpus, label)))
    longest = lm.context or _LONGEST
    rows = store.connection.rows(
        "SELECT document FROM idx.stored_documents WHERE label = ? AND split = 'heldout' "
        "ORDER BY document",
        [label],
    )
    found = []
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
        sure = logits[places - 1].float().log_softmax(-1)[range(len(places)), ids[places]]
        best = int(sure.argmax())
        at = int(places[best])
        word = corpus.texts[corpus.words[start + at]]
        found.append((float(sure[best]), Prompt(ids[:at].tolist(), int(ids[at]), word)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])[:count]]


def answer(site: SaeSite, prompt: Prompt, feature: int, seed: int) -> Found:
    """How the label's best feature stands among the causes of the word."""
    encoding = site.lm.padded([prompt.ids])
    target = Target("logit", len(prompt.ids) - 1, prompt.next)
    graph = graph_pass(site.lm, encoding, [site], target.position)
    [reading] = graph.readings
    [slope] = gradient(target.of_logits(graph.logits), [reading.y])
    size = site.sae.n_latents
    order = [one.feature for one in strongest(reading, reading.effects(slope), size)]
    place = torch.randint(len(order), (), generator=torch.Generator().manual_seed(seed))
    check = attribute(site.lm, encoding, [site], target, top=_TOP, seed=seed).saes[0].check
    assert check is not None  # something fires on every prompt
    return Found(
        order.index(feature) + 1 if feature in order else size,
        int(place) + 1,
        check.rank_correlation,
        check.faithfulness,
        check.random_faithfulness,
    )


if __name__ == "__main__":
    sys.exit(main())
