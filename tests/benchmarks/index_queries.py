"""How fast the questions of the app are answered from an index of 131,072 features.

    python tests/benchmarks/index_queries.py [--features 131072] [--tokens 1000000]

The index (20 top and 20 band examples a feature, 1M tokens) is synthetic, written by the project's
own writer and kept in the temporary folder for the next time.

size     the file
page     50 features in an order never asked for before, by each column, and with every filter
columns  64 rows with all columns that can be chosen, and the first read of one
feature  all that the open feature shows
compare  four features side by side
similar  features of another SAE, by their decoder rows; where the SAE has weights
search   the ranking of all features for frequent and rare words
cold     a fresh process whose file the page cache has forgotten, from opening it to the first
         page; what it imports before that is reported without a limit

Medians in one process; beside them the least reading and the processor's time, since what else runs
on the machine doubles the rest. The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.catalogue import BY_NAME
from mi_crow.mechanistic.features.comparing import MOST, compare_features
from mi_crow.mechanistic.features.queries import SORTS, FeatureFilter, FeatureStore
from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION, TABLES
from mi_crow.mechanistic.features.similar import DecoderRows, similar_features
from mi_crow.store.workspace import Workspace
from tests.benchmarks.rows import Row, write_report
from tests.benchmarks.synthetic_index import Size, write_synthetic

SAE = "synthetic"
NAMED = 5000  # features with a concept
PAGE = 50
BLOCK = 64  # rows that the app's table reads at once
_COLD = """
import json, os, sys, time
begun = time.perf_counter()
from pathlib import Path
from mi_crow.mechanistic.features.comparing import MOST, compare_features
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
import duckdb
workspace = Workspace.open(Path(sys.argv[1]))
descriptor = os.open(workspace.index_path(sys.argv[2]), os.O_RDONLY)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
os.close(descriptor)
imported, used = time.perf_counter(), time.process_time()
store = FeatureStore.open(workspace, sys.argv[2], Annotations(workspace.annotations_path))
assert len(store.page()) == 50
done, used = time.perf_counter(), time.process_time() - used
print(json.dumps({"imports": imported - begun, "page": done - imported, "processor": used}))
"""


def rows(size: Size | None = None, rounds: int = 25) -> list[Row]:
    """Every figure; builds the index where there is none yet."""
    size = size or Size()
    workspace = synthetic_workspace(size)
    found = [Row("size MB", workspace.index_path(SAE).stat().st_size / 1e6, "< 700")]
    return found + answer_rows(workspace, SAE, rounds)


def answer_rows(workspace: Workspace, sae_id: str, rounds: int = 25) -> list[Row]:
    """How fast the questions are answered from any index with labels."""
    annotations = Annotations(workspace.annotations_path)
    store = FeatureStore.open(workspace, sae_id, annotations)
    _name_some(annotations, sae_id, store.meta().n_features)
    store.refresh_concepts()
    return [
        *page_rows(store, rounds),
        *column_rows(store, rounds),
        *feature_rows(store, rounds),
        *compare_rows(store, workspace.sae_dir(sae_id), rounds),
        *similar_rows(workspace, sae_id, rounds),
        *search_rows(store, rounds),
        *cold_rows(workspace, sae_id),
    ]


def synthetic_workspace(size: Size) -> Workspace:
    """A workspace with the index, from the temporary folder or written now."""
    schema = zlib.crc32(repr((INDEX_SCHEMA_VERSION, TABLES, size)).encode())
    workspace = Workspace.open(Path(tempfile.gettempdir()) / f"mi-crow-queries-{schema:08x}")
    folder = workspace.saes_dir / SAE
    if not (folder / "features.duckdb").exists():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = {"architecture": "topk", "d_in": 16, "d_sae": size.features, "k": 8}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        write_synthetic(folder / "features.duckdb", SAE, size)
    return workspace


def _name_some(annotations: Annotations, sae_id: str, features: int) -> None:
    """Names features all over the SAE, once."""
    if annotations.concepts(sae_id):
        return
    step = max(features // NAMED, 1)
    with annotations.one_change():
        for number, feature in enumerate(range(0, step * NAMED, step)):
            note = "seen twice" if number % 3 == 0 else ""
            tags = ["checked"] if number % 2 == 0 else []
            annotations.set_concept(sae_id, feature, f"concept {number}", note=note, tags=tags)


def page_rows(store: FeatureStore, rounds: int) -> list[Row]:
    """A page in a fresh order by every column; then every order with every kind of filter, of which
    the slowest is told."""
    labels = store.meta().labels
    orders = {sort: [sort] for sort in SORTS} | {"auroc:": [f"auroc:{label}" for label in labels]}
    found = [
        timed(f"page by {name}", partial(_fresh_page, store, sorts), rounds)
        for name, sorts in orders.items()
    ]
    combined = []
    for (sort, sorts), (name, wanted) in product(orders.items(), _filters(labels).items()):
        for descending in (True, False):
            page = partial(_fresh_page, store, sorts[:1], descending=descending, flt=wanted)
            row = timed(f"page by {sort}{'' if descending else ' ascending'}, {name}", page, rounds)
            combined.append(row)
    slowest = max(combined, key=lambda row: row.value)
    more = slowest.more | {"slowest": slowest.name, "pages": {r.name: r.value for r in combined}}
    found.append(Row(f"slowest of {len(combined)} orders and filters ms", slowest.value, "", more))
    return [replace(row, wanted="< 15") for row in found]


def _fresh_page(store: FeatureStore, sorts: Sequence[str], n: int, **more: Any) -> None:
    """The second page in the n-th of the orders; what was sorted once is held, and let go first."""
    opened, concepts = store._held
    opened.columns._orders.clear()
    concepts._orders.clear()
    store.page(sorts[n % len(sorts)], offset=PAGE, limit=PAGE, **more)


def _filters(labels: Sequence[str]) -> dict[str, FeatureFilter]:
    """Every kind of filter alone, and some together."""
    return {
        "alive": FeatureFilter(alive=True),
        "named": FeatureFilter(named=True),
        "not named": FeatureFilter(alive=True, named=False),
        "note": FeatureFilter(has_note=True),
        "tag": FeatureFilter(tag="checked"),
        "tag, note": FeatureFilter(tag="checked", has_note=True),
        "label": FeatureFilter(label=labels[-1]),
        "AUROC": FeatureFilter(min_auroc=0.95),
        "alive, AUROC, label": FeatureFilter(alive=True, min_auroc=0.95, label=labels[3]),
        "density": FeatureFilter(min_density=1e-4, max_density=1e-2),
        "density, max": FeatureFilter(min_density=1e-4, max_density=1e-2, min_max_act=5.0),
        "everything": FeatureFilter(True, True, True, "checked", labels[0], 0.5, 0.0, 1.0, 0.0),
    }


def column_rows(store: FeatureStore, rounds: int) -> list[Row]:
    """A block of rows from all over the SAE with every column that can be shown, and the first read
    of each, of which the slowest is told."""
    ids = np.random.default_rng(2).choice(store.meta().n_features, BLOCK, replace=False)
    names = [*BY_NAME, *(f"auroc:{label}" for label in store.meta().labels[:1])]
    firsts = {name: timed(name, lambda _, one=name: store.rows(ids, [one]), 1) for name in names}
    slowest = max(firsts.values(), key=lambda row: row.value)
    return [
        timed(f"{BLOCK} rows with {len(names)} columns", lambda _: store.rows(ids, names), rounds),
        Row(f"  first read of a column, the slowest ({slowest.name[:-3]}) ms", slowest.value),
    ]


def feature_rows(store: FeatureStore, rounds: int) -> list[Row]:
    """The open feature: facts, tokens, relations, labels, concepts, and the examples of all bands
    with their windows and documents; and what the list of concepts asks of all named ones."""
    firing = store.ids("feature", flt=FeatureFilter(alive=True))
    chosen = np.random.default_rng(1).choice(firing, rounds).tolist()
    named = sorted(store._held[1].concepts)

    def whole(n: int) -> None:
        assert len(store.detail(chosen[n]).labels) == len(store.meta().labels)
        assert store.all_examples(chosen[n])

    return [
        timed("whole feature", whole, rounds, "< 25"),
        timed("  without examples", lambda n: store.detail(chosen[n]), rounds),
        timed(f"labels of {len(named)} named features", lambda _: store.best_labels(named), rounds),
    ]


def compare_rows(store: FeatureStore, folder: Path, rounds: int) -> list[Row]:
    """The most features that are compared at once, from all over the SAE."""
    ids = np.random.default_rng(3).choice(store.meta().n_features, (rounds, MOST), replace=False)
    work = partial(compare_features, store, folder=folder)
    return [timed(f"{MOST} features side by side", lambda n: work(ids[n].tolist()), rounds)]


def similar_rows(workspace: Workspace, sae_id: str, rounds: int) -> list[Row]:
    """The features of another SAE that are most like one of this: the same file read as both."""
    folder = workspace.sae_dir(sae_id)
    if not (folder / "sae_weights.safetensors").is_file():
        return []
    ours, theirs = DecoderRows.open(folder, sae_id), DecoderRows.open(folder, sae_id)
    rows, width = len(ours), ours.width
    name = f"similar among {rows:,} of width {width}"
    return [timed(name, lambda n: similar_features(ours, n, theirs), rounds)]


def search_rows(store: FeatureStore, rounds: int) -> list[Row]:
    """Words from the most frequent to the rarest, one or two of them, and a beginning of many."""
    tokens = store._held[0].connection.rows("SELECT token FROM idx.tokens ORDER BY token_id")
    places = np.unique(np.geomspace(1, len(tokens), rounds).astype(int) - 1)
    words = [tokens[place][0].strip() for place in places]
    some = len(words)
    return [
        timed("search for a word", lambda n: store.search(words[n % some]), rounds, "< 60"),
        timed("  two words", lambda n: store.search(f"{words[0]} {words[n % some]}"), rounds),
        timed("  a beginning", lambda n: store.search(words[n % some][:3]), rounds, "< 60"),
        timed("features on a text", lambda n: store.on_text(words[n % some]), rounds),
    ]


def cold_rows(workspace: Workspace, sae_id: str, rounds: int = 7) -> list[Row]:
    """Fresh processes, the file not in memory."""
    command = [sys.executable, "-c", _COLD, str(workspace.root), sae_id]
    found = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    names = ("page", "imports", "processor")
    pages, imports, used = ([1000 * one[name] for one in found] for name in names)
    more = {"least": min(pages), "processor": statistics.median(used)}
    return [
        Row("first page of a cold file ms", statistics.median(pages), "< 150", more),
        Row("  imports before it ms", statistics.median(imports)),
    ]


def timed(name: str, work: Callable[[int], Any], rounds: int, wanted: str = "") -> Row:
    """Median in ms; `more` has the first reading, the least and the processor's time."""
    wall, processor = [], []
    for number in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        work(number)
        wall.append(1000 * (time.perf_counter() - begun))
        processor.append(1000 * (time.process_time() - used))
    more = {"first": wall[0], "least": min(wall), "processor": statistics.median(processor)}
    return Row(f"{name} ms", statistics.median(wall), wanted, more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/index_queries.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = rows(Size(features=options.features, tokens=options.tokens), options.rounds)
    for row in found:
        used = row.more.get("processor")
        print(
            row.line()
            + (f"  (processor {used:.1f}, least {row.more['least']:.1f})" if used else "")
        )
    write_report(options.out, vars(options), found, load=[load, os.getloadavg()[0]])
    print(f"load {load:.1f}; written to {options.out}")


if __name__ == "__main__":
    main()
