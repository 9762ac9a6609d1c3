"""`mi-crow capture`: a model's activations on texts."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_model_flags,
    add_seed,
    device_of,
    plan_workspace,
    positive,
)
from mi_crow.cli.following import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.cli.text import count, duration, number, share, size
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.config import (
    LONG_DOCUMENTS,
    STORAGE_DTYPES,
    CaptureConfig,
    DatasetSpec,
    ModelSpec,
)

_BATCH_SIZE = 32


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        help="hook point: module name or short name (resid_post.15); may be repeated",
    )
    texts = parser.add_argument_group("texts")
    texts.add_argument(
        "--dataset",
        default="sample",
        help="txt, md, json, jsonl, csv, tsv, parquet file, folder, hub id, or `sample` (default)",
    )
    texts.add_argument("--split", default="train", help="of a Hugging Face data set (train)")
    texts.add_argument("--text-field", default="text", help="the field with the text (text)")
    texts.add_argument("--label-field", help="the field with labels (`label` where there is one)")
    texts.add_argument("--limit", type=positive, help="documents")
    texts.add_argument("--token-limit", type=positive, help="stop after this many kept tokens")
    texts.add_argument(
        "--sample-seed", type=int, help="draw --limit documents at random with this seed"
    )
    texts.add_argument(
        "--streaming", action="store_true", help="read a hub data set as it comes, not whole first"
    )
    add_model_flags(parser)
    parser.add_argument(
        "--dtype",
        default="bf16",
        choices=STORAGE_DTYPES,
        help="of the stored activations (bf16); int8 has one scale a token",
    )
    parser.add_argument(
        "--context-length", type=positive, default=128, help="tokens a row through the model (128)"
    )
    parser.add_argument(
        "--long-documents",
        default="truncate",
        choices=LONG_DOCUMENTS,
        help="truncate them to the context (the default) or split them into windows of it",
    )
    parser.add_argument(
        "--pack", action="store_true", help="several short documents a row, end-of-text between"
    )
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default=_BATCH_SIZE,
        help=f"documents ({_BATCH_SIZE}, as `auto`); halved when memory runs out",
    )
    parser.add_argument("--shard-size", type=positive, default=512, help="documents a part (512)")
    parser.add_argument("--keep-special", action="store_true", help="keep special tokens")
    parser.add_argument("--name", help="the run's id; made from the time and the model otherwise")
    add_device(parser)
    add_seed(parser)
    add_job_flags(parser, ranked=True)


def run(options: Namespace) -> int:
    config = CaptureConfig(
        model=ModelSpec(
            options.model,
            gguf_file=options.gguf_file,
            revision=options.revision,
            dtype=options.model_dtype,
            device=device_of(options),
            offline=options.offline,
            trust_remote_code=options.trust_remote_code,
        ),
        dataset=DatasetSpec(
            options.dataset,
            split=options.split,
            text_field=options.text_field,
            label_field=options.label_field,
            limit=options.limit,
            token_limit=options.token_limit,
            sample_seed=options.sample_seed,
            streaming=options.streaming,
        ),
        layers=tuple(options.layer),
        dtype=options.dtype,
        context_length=options.context_length,
        long_documents=options.long_documents,
        pack=options.pack,
        batch_size=options.batch_size,
        shard_size=options.shard_size,
        keep_special=options.keep_special,
        name=options.name,
        seed=options.seed,
    )
    return run_job(plan_workspace(options), "capture", config_as_json(config), options, show_result)


def show_result(result: dict[str, Any]) -> None:
    facts = {
        "run": result["run_id"],
        "layers": ", ".join(result["layers"]),
        "tokens": f"{count(result['tokens'])} of {count(result['documents'])} documents",
        "size": size(result["bytes"]),
        "padding": share(result["padding_share"]),
        "time": duration(result["seconds"]),
    }
    if lost := result["rounding_fvu"]:
        facts["int8 costs"] = ", ".join(
            f"FVU {number(fvu)} at {name}" for name, fvu in lost.items()
        )
    facts["next"] = f"mi-crow train --run {result['run_id']} --layer {result['layers'][0]}"
    print_facts(facts)


def _batch_size(text: str) -> int:
    """A number of documents, or `auto`: the default, which the capture halves as memory asks."""
    return _BATCH_SIZE if text == "auto" else positive(text)
