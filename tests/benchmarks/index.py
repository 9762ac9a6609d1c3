"""What an index costs beyond the encoder's product that it cannot do without.

    python tests/benchmarks/index.py [--only ROW] [--threads 2] [--device cuda] [--peer PYTHON]

pass     the streaming pass over 200k stored tokens of SmolLM2-135M, layer 15, with 4,608 latents,
         against `x @ W.T` over the same tokens, in turns in one process. The pass is encoding,
         statistics, examples with windows, co-firing and AUROC; what comes from the weights, the
         texts of tokens and DuckDB are reported apart
memory   by how much the peak of a whole index job lies above the loaded model and SAE, in a
         process of its own
peer     tokens a second against the text tracking of the published package, which runs in an
         environment of its own (`python -m venv peer && peer/bin/pip install
         mi-crow==1.0.0.post10`, then `--peer peer/bin/python`) on a few of the same texts; from
         stored activations, and with the model's forward pass
queries  on a synthetic index (`index_queries.py`); only with `--queries`

The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.store.workspace import Workspace
from tests.benchmarks.encoder_product import EncoderProduct
from tests.benchmarks.indexed import SAE_ID, Indexed, K, indexed_run
from tests.benchmarks.memory import peak, resident
from tests.benchmarks.peer_process import PeerProcess
from tests.benchmarks.rows import Row, with_sleeping_threads, write_report
from tests.benchmarks.stages import PASS, Stages, index_stages
from tests.real_model.smollm2 import model_folder

ROWS = ("pass", "memory", "peer")
CONTEXT, PEER_BATCH = 128, 16
GIGABYTE = 1e9


def build(
    indexed: Indexed, sae: SparseAutoencoder, lm: LanguageModel, writing: bool = True
) -> Stages:
    """One whole index job; its seconds by stage."""
    config = IndexConfig(SAE_ID, run_id=indexed.reader.manifest.run_id, device=str(sae.device))
    with index_stages(writing) as stages:
        build_index(indexed.workspace, config, sae=sae, lm=lm)
    return stages


def pass_rows(indexed: Indexed, device: str, rounds: int) -> list[Row]:
    sae = load_sae(indexed.workspace.sae_dir(SAE_ID), device=torch.device(device))
    lm = LanguageModel.from_huggingface(model_folder(), device=device)
    product = EncoderProduct(indexed.reader, sae)
    product.seconds()
    build(indexed, sae, lm)
    products: list[float] = []
    passes: list[Stages] = []
    whole: list[Stages] = []
    for _ in range(rounds):
        products.append(product.seconds())
        passes.append(build(indexed, sae, lm, writing=False))
        whole.append(build(indexed, sae, lm))
    ratios = [one.streaming / base for one, base in zip(passes, products, strict=True)]
    besides = [job.whole - one.streaming for job, one in zip(whole, passes, strict=True)]
    shares = {
        name: statistics.median(
            one.seconds[name] / base for one, base in zip(passes, products, strict=True)
        )
        for name in PASS
    }
    found = {"rounds": ratios, "product": products, "load": os.getloadavg()}
    return [
        Row("streaming pass / encoder's product, time", statistics.median(ratios), "<= 1.5", found),
        *(
            Row(f"  {name} / encoder's product", shares[name])
            for name in sorted(PASS, key=lambda name: -shares[name])
        ),
        Row(
            "all besides the pass, seconds",
            statistics.median(besides),
            "<= 60",
            {"rounds": besides},
        ),
        *(
            Row(f"  {name}, seconds", statistics.median(job.seconds[name] for job in whole))
            for name in whole[0].seconds
            if name not in PASS
        ),
    ]


def memory_row(device: str) -> Row:
    command = [sys.executable, __file__, "--memory-probe", "--device", device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    name = "peak memory above the model, GB"
    return Row(name, found["bytes"] / GIGABYTE, "<= 1.5", found)


def memory_probe(device: str) -> None:
    """Builds the index once and prints by how many bytes the peak lies above model and SAE."""
    indexed = indexed_run()
    sae = load_sae(indexed.workspace.sae_dir(SAE_ID), device=torch.device(device))
    lm = LanguageModel.from_huggingface(model_folder(), device=device)
    for parameter in lm.model.parameters():
        parameter.sum()  # mapped from the file until it is touched
    before = resident()
    build(indexed, sae, lm)
    found = {"bytes": peak() - before, "before": before}
    if device.startswith("cuda"):
        found["device_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(found))


def peer_rows(indexed: Indexed, python: Path, device: str, texts: int, rounds: int) -> list[Row]:
    """Tokens a second: theirs tracks texts while the model runs, ours indexes all of it."""
    sae = load_sae(indexed.workspace.sae_dir(SAE_ID), device=torch.device(device))
    lm = LanguageModel.from_huggingface(model_folder(), device=device)
    passages = indexed.texts(512)
    stored: list[float] = []
    running: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "texts.json"
        given.write_text(json.dumps(passages[:texts]))
        layer = indexed.reader.layer.name
        arguments = {
            "model": str(model_folder()),
            "texts": str(given),
            "store": str(Path(scratch) / "store"),
            "layer": layer,
            "latents": sae.n_latents,
            "k": K,
            "context": CONTEXT,
            "batch": PEER_BATCH,
        }
        with PeerProcess(python, "published_tracking", arguments) as peer:
            for number in range(rounds):
                theirs.append(peer.facts["tokens"] / peer.block())
                job = build(indexed, sae, lm)
                seconds = job.whole / indexed.reader.n_tokens
                stored.append(1 / seconds)
                forward = _capture_seconds(lm, passages, layer, Path(scratch) / f"run-{number}")
                running.append(1 / (seconds + forward))
    return [
        _ratio("our index from stored activations", stored, theirs, ">= 100"),
        _ratio("our capture and index", running, theirs, ">= 15"),
    ]


def _capture_seconds(lm: LanguageModel, texts: Sequence[str], layer: str, scratch: Path) -> float:
    """Of one token of a capture, writing included."""
    scratch.mkdir()
    source = scratch / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = CaptureConfig(
        ModelSpec(str(model_folder()), device=str(lm.device)),
        DatasetSpec(str(source)),
        (layer,),
        context_length=CONTEXT,
    )
    began = time.perf_counter()
    result = capture_run(Workspace.open(scratch / "workspace"), config)
    return (time.perf_counter() - began) / result.tokens


def _ratio(name: str, ours: list[float], theirs: list[float], wanted: str) -> Row:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    found: dict[str, Any] = {"rounds": ratios, "ours": ours, "theirs": theirs}
    return Row(f"{name} / published tracking, tokens/s", statistics.median(ratios), wanted, found)


def query_rows() -> list[Row]:
    from tests.benchmarks.index_queries import rows

    return rows()


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """The rows that were asked for, as they come."""
    wanted = [options.only] if options.only else ROWS
    indexed = indexed_run()
    if "pass" in wanted:
        yield from pass_rows(indexed, options.device, options.rounds)
    if "memory" in wanted:
        yield memory_row(options.device)
    if "peer" in wanted and options.peer is not None:
        yield from peer_rows(
            indexed, options.peer, options.device, options.peer_texts, options.peer_rounds
        )
    if options.queries:
        yield from query_rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peer", type=Path, help="Python with the published mi-crow")
    parser.add_argument("--peer-texts", type=int, default=8)
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--queries", action="store_true", help="the rows of index_queries.py, too")
    parser.add_argument("--only", choices=ROWS)
    parser.add_argument("--memory-probe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/index.json"))
    options = parser.parse_args()
    with_sleeping_threads(options.threads)
    torch.set_flush_denormal(True)
    if options.memory_probe:
        memory_probe(options.device)
        return
    rows: list[Row] = []
    for row in measured(options):
        rows.append(row)
        print(row.line(), flush=True)
        write_report(options.out, vars(options), rows)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
