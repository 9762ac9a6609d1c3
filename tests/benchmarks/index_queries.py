"""How fast the questions of the app are answered from an index of 131,072 features.

    python tests/benchmarks/index_queries.py [--features 131072] [--tokens 1000000]

The index (20 top and 20 band examples a feature, 1M tokens) is synthetic, written by the project's
own writer and kept in the temporary folder for the next time.

size     the file
page     50 features in an order never asked for before, by each column and with filters
feature  all that the open feature shows
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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.queries import SORTS, FeatureFilter, FeatureStore
from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION, TABLES
from mi_crow.store.workspace import Workspace
from tests.benchmarks.rows import Row, write_report
from tests.benchmarks.synthetic_index import LABELS, Size, write_synthetic

SAE = "synthetic"
NAMED = 2000  # features with a concept
PAGE = 50
_COLD = """
import json, os, sys, time
begun = time.perf_counter()
from pathlib import Path
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
    store = FeatureStore.open(workspace, SAE, Annotations(workspace.annotations_path))
    found += page_rows(store, rounds)
    found += feature_rows(store, size, rounds)
    found += search_rows(store, rounds)
    return found + cold_rows(workspace)


def synthetic_workspace(size: Size) -> Workspace:
    """A workspace with the index, from the temporary folder or written now."""
    schema = zlib.crc32(repr((INDEX_SCHEMA_VERSION, TABLES, size)).encode())
    workspace = Workspace.open(Path(tempfile.gettempdir()) / f"mi-crow-queries-{schema:08x}")
    folder = workspace.saes_dir / SAE
    if not (folder / "features.duckdb").exists():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = {"architecture": "topk", "d_in": 16, "d_sae": size.features, "k": 8}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        _name_some(Annotations(workspace.annotations_path), size)
        write_synthetic(folder / "features.duckdb", SAE, size)
    return workspace


def _name_some(annotations: Annotations, size: Size) -> None:
    for number in range(NAMED):
        note = "seen twice" if number % 3 == 0 else ""
        tags = ["checked"] if number % 2 == 0 else []
        place = number * (size.features // NAMED)
        annotations.set_concept(SAE, place, f"concept {number}", note=note, tags=tags)


def page_rows(store: FeatureStore, rounds: int) -> list[Row]:
    """A page in a fresh order by every column, and with every kind of filter and a search."""

    def fresh(sort: str, **more: Any) -> list[Any]:
        store._held[0].columns._orders.clear()  # what was sorted once is held: the page is instant
        return store.page(sort, offset=PAGE, limit=PAGE, **more)

    orders = (*SORTS, "auroc:")
    found = []
    for sort in orders:
        names = [f"{sort}{label}" for label in LABELS] if sort == "auroc:" else [sort]
        found.append(
            timed(f"page by {sort}", lambda n, names=names: fresh(names[n % len(names)]), rounds)
        )
    filters = {
        "alive, AUROC, label": FeatureFilter(alive=True, min_auroc=0.95, label=LABELS[3]),
        "tag, note": FeatureFilter(tag="checked", has_note=True),
        "density, max": FeatureFilter(min_density=1e-4, max_density=1e-2, min_max_act=5.0),
    }
    for name, wanted in filters.items():
        found.append(
            timed(f"page of {name}", lambda _, flt=wanted: fresh("density", flt=flt), rounds)
        )
    return [replace(row, wanted="< 15") for row in found]


def feature_rows(store: FeatureStore, size: Size, rounds: int) -> list[Row]:
    """The open feature: facts, tokens, relations, labels, concepts, and the examples of all bands
    with their windows and documents."""
    chosen = np.random.default_rng(1).integers(0, size.features, rounds).tolist()

    def whole(n: int) -> None:
        detail = store.detail(chosen[n])
        examples = store.all_examples(chosen[n])
        assert len(detail.labels) == len(LABELS)
        assert sum(len(some) for some in examples.values()) == 2 * size.top

    return [
        timed("whole feature", whole, rounds, "< 25"),
        timed("  without examples", lambda n: store.detail(chosen[n]), rounds),
    ]


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


def cold_rows(workspace: Workspace, rounds: int = 7) -> list[Row]:
    """Fresh processes, the file not in memory."""
    command = [sys.executable, "-c", _COLD, str(workspace.root), SAE]
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
