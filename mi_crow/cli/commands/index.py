"""`mi-crow index`: the feature index of an SAE."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import (
    add_batch_size,
    add_fields,
    add_job,
    add_sae,
    add_setting,
    bounded_size,
    device_of,
    open_workspace,
    sae_to_read,
)
from mi_crow.cli.commands.meaning.explain import names_fact
from mi_crow.cli.commands.meaning.index_plan import (
    add_estimate_flags,
    print_estimate,
    refuse_without_estimate,
)
from mi_crow.cli.formatting import count, duration, size
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.cli.text_flags import add_live_texts, live_texts
from mi_crow.errors import UserError
from mi_crow.mechanistic.features.config import MAPS, IndexConfig
from mi_crow.same_fields import same_fields


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument("--run", help="run to read (default: the one it was trained on)")
    tuned = "of a crosscoder of two models: run of the tuned one (default: its own)"
    add_fields(parser, IndexConfig, {"tuned_run": tuned})
    added = "add --run or --dataset to the existing index"
    add_fields(parser, IndexConfig, {"append": added, "top_examples": "examples per feature"})
    add_setting(
        parser, "--window", 32, "tokens on either side of an example's peak", type=bounded_size
    )
    parser.add_argument(
        "--map",
        choices=MAPS,
        default="pca",
        help="layout of the feature map (default: pca); umap needs the extra `map`",
    )
    rounded = (
        "precision of the encoder's product (default: auto, which is bf16 on CUDA for topk, else "
        "fp32); latents are chosen, and count, in fp32"
    )
    add_fields(parser, IndexConfig, {"precision": rounded})
    add_batch_size(
        parser,
        "tokens per SAE batch (default: auto, which is 2048 or more, on CUDA 16384); halved when "
        "memory runs out",
    )
    parser.add_argument(
        "--no-names",
        dest="names",
        action="store_false",
        help="do not propose names for the features (mi-crow explain does it later)",
    )
    add_live_texts(parser)
    add_estimate_flags(parser)
    add_job(parser, ranked=True)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    if options.model is not None and options.dataset is None:
        raise UserError("--model needs texts to run on", hint="name them with --dataset")
    config = same_fields(
        IndexConfig,
        options,
        sae_id=sae_to_read(workspace, options),
        run_id=options.run,
        live=live_texts(options),
        device=device_of(options),
    )
    if options.estimate:
        print_estimate(workspace, config, options)
        return 0
    refuse_without_estimate(options)
    return run_job(workspace, "index", config, options, show_result)


def show_result(result: dict[str, Any]) -> None:
    print_facts(
        {
            "SAE": result["sae_id"],
            "features": f"{count(result['features'])} over {count(result['tokens'])} tokens",
            **names_fact(result.get("names")),
            "size": size(result["bytes"]),
            "time": duration(result["seconds"]),
            "next": f"mi-crow features --sae {result['sae_id']}",
        }
    )
