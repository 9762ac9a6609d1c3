"""How fast a dictionary comes in: 100,000 names, by file, into a workspace with others or none.

python -m tests.benchmarks.dictionary [--rows 100000]
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.exchange.importing import Rule, import_concepts
from mi_crow.store.workspace import Workspace
from tests.benchmarks.rows import Row, write_report

SAE = "wide"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/dictionary.json"))
    options = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        rows = measured(Path(folder), options.rows)
    for row in rows:
        print(row.line())
    write_report(options.out, vars(options), rows)
    return 0


def measured(folder: Path, count: int) -> list[Row]:
    """Each file into a new workspace; then once more, by the rule that compares most."""
    found = []
    for suffix, write in WRITERS.items():
        workspace = Workspace.open(folder / suffix.replace(".", "-"))
        sae = workspace.make_sae_dir(SAE, SAE)
        cfg = {"architecture": "topk", "d_in": 8, "d_sae": count, "k": 1, "metadata": {}}
        (sae / "cfg.json").write_text(json.dumps(cfg))
        path = folder / f"names{suffix}"
        write(path, count)
        annotations = Annotations(workspace.annotations_path)
        rules: dict[str, Rule] = {"new": "ask", "known, higher": "higher"}
        for words, rule in rules.items():
            begun = time.perf_counter()
            done = import_concepts(workspace, annotations, path, sae_id=SAE, rule=rule)
            seconds = time.perf_counter() - begun
            assert done.concepts == count, done
            found.append(Row(f"{count:,} names, {suffix}, {words}: s", seconds, "<= 5"))
        annotations.close()
    return found


def _csv(path: Path, count: int) -> None:
    said = '"a note, of {0}","[""a"", ""b""]"'
    rows = (f'{n},"concept {n}",{n % 100 / 100},{said.format(n)}' for n in range(count))
    path.write_text("feature,name,confidence,note,tags\n" + "\n".join(rows) + "\n")


def _guides(path: Path, count: int) -> None:
    rows = (f"{n},concept {n},{n % 100 / 100}" for n in range(count))
    path.write_text("neuron_idx,concept_name,score\n" + "\n".join(rows) + "\n")


def _json(path: Path, count: int) -> None:
    said = {"tags": ["a"], "note": "a note"}
    rows = [{"feature": n, "name": f"concept {n}", **said} for n in range(count)]
    path.write_text(json.dumps(rows))


def _neuronpedia(path: Path, count: int) -> None:
    said = {"layer": "10-res-jb"}
    rows = ({"index": str(n), "description": f"concept {n}", **said} for n in range(count))
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    ".csv": _csv,
    "-guides.csv": _guides,
    ".json": _json,
    ".jsonl.gz": _neuronpedia,
}

if __name__ == "__main__":
    raise SystemExit(main())
