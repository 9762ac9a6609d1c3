"""What a whole index job on 131,072 latents and 1M tokens costs, and how fast its index answers.

    python tests/benchmarks/index_wide.py [--features 131072] [--tokens 1000000] [--device cuda]

The texts are new passages of the sample corpus's grammar, captured from the sample model. Latents
are random directions around the mean activation, so they fire as unevenly as activations lie. Run
and SAE are kept in the user's cache. On two cores all of it takes a quarter of an hour.

job      the streaming pass, with the texts of tokens and what is written on the way, against
         `x @ W.T` over the same tokens; the seconds of all stages, those of several threads
         together; the peak of memory above the loaded model and SAE; the index file
queries  the rows of `index_queries.py` on that index

The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from platformdirs import user_cache_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.store.runs.manifest import MANIFEST_NAME
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace
from sample_data.grammar.passages import passages
from tests.benchmarks.captured import OUTLIER_FACTOR, SAMPLE_LAYER
from tests.benchmarks.encoder_product import EncoderProduct
from tests.benchmarks.index_queries import answer_rows
from tests.benchmarks.memory import peak, resident
from tests.benchmarks.rows import Row, with_sleeping_threads, write_report
from tests.benchmarks.stages import index_stages

K = 32
TOP, BANDS, BAND_EXAMPLES = 20, 4, 5
TOKENS_A_PASSAGE = 80  # at least, on average


def wide_run(workspace: Workspace, tokens: int) -> RunReader:
    """Activations of the sample model on passages that its corpus does not hold."""
    name = f"wide-{tokens}"
    if not (workspace.activations_dir / name / MANIFEST_NAME).is_file():
        with tempfile.TemporaryDirectory() as scratch:
            texts = Path(scratch) / "texts.jsonl"
            drawn = passages(tokens // TOKENS_A_PASSAGE, seed="wide")
            lines = [json.dumps({"text": one.text, "label": one.label}) for one in drawn]
            texts.write_text("\n".join(lines) + "\n", "utf-8")
            spec = DatasetSpec(str(texts), token_limit=tokens)
            capture_run(
                workspace, CaptureConfig(ModelSpec("sample"), spec, (SAMPLE_LAYER,), name=name)
            )
    return RunReader(workspace.run_dir(name), SAMPLE_LAYER)


def wide_sae(workspace: Workspace, reader: RunReader, features: int) -> str:
    """The id of an SAE of random directions, written where there is none yet."""
    name = f"wide-{features}"
    folder = workspace.saes_dir / name
    if not (folder / "cfg.json").is_file():
        limit = OUTLIER_FACTOR * reader.median_norm()
        centre = reader.sample(100_000, 0, max_norm=limit).float().mean(0)
        sae = TopKSae.random(features, reader.width, K, b_dec=centre)
        manifest = reader.manifest
        sae.metadata = SaeMetadata(
            manifest.model_id,
            layer=reader.layer.name,
            point=reader.layer.point,
            tokenizer_hash=manifest.tokenizer_hash,
            run_id=manifest.run_id,
            outlier_norm=limit,
        )
        sae.save(folder)
    return name


def job_rows(workspace: Workspace, reader: RunReader, sae_id: str, device: str) -> list[Row]:
    sae = load_sae(workspace.sae_dir(sae_id), device=torch.device(device))
    lm = LanguageModel.from_huggingface("sample", device=device)
    for parameter in (*lm.model.parameters(), *sae.parameters()):
        parameter.sum()  # mapped from the file until it is touched
    before = resident()
    config = IndexConfig(
        sae_id,
        run_id=reader.manifest.run_id,
        top_examples=TOP,
        bands=BANDS,
        band_examples=BAND_EXAMPLES,
        device=device,
    )
    with index_stages() as stages:
        result = build_index(workspace, config, sae=sae, lm=lm)
    above = peak() - before
    product = EncoderProduct(reader, sae).seconds()
    return [
        Row("streaming pass, texts and writing / encoder's product", stages.streaming / product),
        Row("  encoder's product, seconds", product),
        *(Row(f"  {name}, seconds", seconds) for name, seconds in stages.seconds.items()),
        Row("whole job, seconds", stages.whole),
        Row("peak memory above the model and the SAE, GB", above / 1e9, "<= 1.5"),
        Row("index MB", result.bytes / 1e6, "< 700", {"tokens": result.tokens}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=25, help="of every question")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/index_wide.json"))
    options = parser.parse_args()
    with_sleeping_threads(options.threads)
    torch.set_flush_denormal(True)
    workspace = Workspace.open(Path(user_cache_dir("mi-crow")) / "benchmarks")
    workspace.ensure()
    reader = wide_run(workspace, options.tokens)
    sae_id = wide_sae(workspace, reader, options.features)
    rows = job_rows(workspace, reader, sae_id, options.device)
    rows += answer_rows(workspace, sae_id, options.rounds)
    for row in rows:
        print(row.line())
    write_report(options.out, vars(options), rows, load=os.getloadavg())
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
