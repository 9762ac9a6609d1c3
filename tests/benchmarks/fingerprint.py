"""What the sample job makes, as one sum a part: equal before and after a change of structure.

    python tests/benchmarks/fingerprint.py WORKSPACE [--sae demo-topk] [--out before.json]
    python tests/benchmarks/fingerprint.py WORKSPACE --against before.json

WORKSPACE is what `mi-crow demo --no-tui --workspace WORKSPACE` made. The parts are the SAE's
tensors, the rows of each table of its index by column, and the logits of two texts while one
feature is turned up. Only what both sides have is compared; what one side alone has is listed.
Exit code 1 where a part differs.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import duckdb
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import load_sae

TEXTS = ["The old harbour was quiet this morning, and", "The court heard the case in"]
# When and by which code it was made.
NOT_COMPARED = {"meta"}


def tensors(folder: Path) -> dict[str, str]:
    """A sum for each tensor of the SAE."""
    weights = load_file(folder / "sae_weights.safetensors")
    return {
        f"weights {name}": _sum(value.contiguous().view(-1).numpy().tobytes())
        for name, value in weights.items()
    }


def columns(folder: Path) -> dict[str, str]:
    """A sum for each column of each table of the index, in the order of the rows."""
    found = {}
    with duckdb.connect(str(folder / "features.duckdb"), read_only=True) as index:
        for (table,) in index.sql(
            "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
        ).fetchall():
            if table in NOT_COMPARED:
                continue
            rows = index.sql(f'SELECT * FROM "{table}"').to_arrow_table()
            for name in rows.column_names:
                values = json.dumps(rows[name].to_pylist(), default=str)
                found[f"index {table}.{name}"] = _sum(values.encode())
    return found


def logits(folder: Path) -> dict[str, str]:
    """A sum for the logits of the texts, plain and with the SAE's strongest feature doubled."""
    with duckdb.connect(str(folder / "features.duckdb"), read_only=True) as index:
        [(feature,)] = index.sql(
            "SELECT feature FROM features ORDER BY max_act DESC LIMIT 1"
        ).fetchall()
    layer = json.loads((folder / "cfg.json").read_text())["metadata"]["mi_crow"]["point"]
    model = LanguageModel.from_huggingface("sample", device="cpu")
    plain, _ = model.inference.execute_inference(TEXTS)
    sae = load_sae(folder)
    model.attach_sae(sae, layer)
    sae.concepts.manipulate_concept(neuron_idx=feature, scale=2.0)
    steered, _ = model.inference.execute_inference(TEXTS, with_controllers=True)
    assert not plain.logits.equal(steered.logits)
    return {
        "logits plain": _sum(plain.logits.contiguous().numpy().tobytes()),
        "logits steered": _sum(steered.logits.contiguous().numpy().tobytes()),
    }


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--sae", default="demo-topk")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    folder = options.workspace / "saes" / options.sae
    found = tensors(folder) | columns(folder) | logits(folder)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1))
    if options.against is None:
        print("\n".join(f"{part:48} {value}" for part, value in found.items()))
        return 0
    before = json.loads(options.against.read_text())
    both = [part for part in found if part in before]
    changed = [part for part in both if found[part] != before[part]]
    alone = sorted(set(found) ^ set(before))
    print(f"{len(both) - len(changed)} of {len(both)} parts are equal")
    print("\n".join(f"differs  {part}" for part in changed))
    print("\n".join(f"one side {part}" for part in alone))
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
