"""`mi-crow capture`: a model's activations on texts, stored as a run."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import (
    add_batch_size,
    add_fields,
    add_job,
    add_model_flags,
    plan_workspace,
)
from mi_crow.cli.formatting import count, duration, hook_point, number, share, size
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.cli.text_flags import add_text_flags, dataset_of, model_of
from mi_crow.language_model.config import CaptureConfig, DatasetSpec
from mi_crow.same_fields import same_fields


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        help="hook point, as module name or short name (resid_post.15); repeatable",
    )
    add_text_flags(parser)
    add_fields(parser, DatasetSpec, {"token_limit": "maximum number of stored tokens"})
    add_model_flags(parser)
    stored = "dtype of the stored activations (default: bf16); int8 has one scale per token"
    add_fields(parser, CaptureConfig, {"dtype": stored})
    add_batch_size(
        parser,
        "documents per batch (default: auto, which is 32, or more on CUDA); halved when memory "
        "runs out",
    )
    split = "processes split the model instead of the documents (needs --nproc)"
    add_fields(parser, CaptureConfig, {"tensor_parallel": split})
    named = "id of the run (default: from time and model)"
    add_fields(parser, CaptureConfig, {"shard_size": "documents per part", "name": named})
    add_job(parser, ranked=True)


def run(options: Namespace) -> int:
    config = same_fields(
        CaptureConfig,
        options,
        model=model_of(options),
        dataset=dataset_of(options, options.token_limit),
        layers=tuple(options.layer),
    )
    return run_job(plan_workspace(options), "capture", config, options, show_result)


def show_result(result: dict[str, Any]) -> None:
    modules = result["layers"]
    points = dict(zip(modules, result.get("points", modules), strict=True))
    facts = {
        "run": result["run_id"],
        "layers": ", ".join(hook_point(point, module) for module, point in points.items()),
        "tokens": f"{count(result['tokens'])} of {count(result['documents'])} documents",
        "size": size(result["bytes"]),
        "padding": share(result["padding_share"]),
        "time": duration(result["seconds"]),
    }
    if lost := result["rounding_fvu"]:
        facts["int8 error"] = ", ".join(
            f"FVU {number(fvu)} at {points.get(name, name)}" for name, fvu in lost.items()
        )
    facts["next"] = f"mi-crow train --run {result['run_id']} --layer {points[modules[0]]}"
    print_facts(facts)
