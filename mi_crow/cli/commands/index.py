"""`mi-crow index`: the feature index of an SAE."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_model_flags,
    add_sae,
    add_seed,
    bounded_size,
    device_of,
    open_workspace,
    positive,
    sae_to_read,
)
from mi_crow.cli.commands.meaning.explain import names_fact
from mi_crow.cli.formatting import count, duration, size
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.cli.text_flags import (
    OF_A_MODEL,
    OF_TEXTS,
    add_text_flags,
    dataset_of,
    fill_in,
    leave_out,
    model_of,
    refuse_given,
    rows_of,
)
from mi_crow.errors import UserError
from mi_crow.jobs.spec import config_as_json
from mi_crow.mechanistic.features.config import MAPS, IndexConfig, LiveTexts


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument("--run", help="run to read (default: the one it was trained on)")
    parser.add_argument(
        "--append",
        action="store_true",
        help="add --run or --dataset to the existing index",
    )
    parser.add_argument(
        "--top-examples",
        type=bounded_size,
        default=20,
        help="examples per feature (default: 20)",
    )
    parser.add_argument(
        "--window",
        type=bounded_size,
        default=32,
        help="tokens on either side of an example's peak (default: 32)",
    )
    parser.add_argument(
        "--map",
        choices=MAPS,
        default="pca",
        help="layout of the feature map (default: pca); umap needs the extra `map`",
    )
    parser.add_argument(
        "--batch-size",
        type=bounded_size,
        help="tokens per SAE batch (default: 2048, on CUDA 16384); lower it when memory runs out",
    )
    parser.add_argument(
        "--no-names",
        dest="names",
        action="store_false",
        help="do not propose names for the features (mi-crow explain does it later)",
    )
    # With --dataset, texts are run through the model instead of reading a stored run.
    add_text_flags(parser, default=None)
    parser.add_argument(
        "--token-limit", type=positive, help="read at most this many tokens of --dataset"
    )
    add_model_flags(parser, default=None)
    leave_out(parser, (*OF_TEXTS, "token_limit", *OF_A_MODEL))
    add_device(parser)
    add_seed(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    config = IndexConfig(
        sae_id=sae_to_read(workspace, options),
        run_id=options.run,
        live=live_texts(options),
        append=options.append,
        top_examples=options.top_examples,
        window=options.window,
        map=options.map,
        names=options.names,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device_of(options),
    )
    return run_job(workspace, "index", config_as_json(config), options, show_result)


def live_texts(options: Namespace) -> LiveTexts | None:
    """The texts that --dataset and its flags describe; None without. Raises UserError."""
    if options.dataset is None:
        if options.model is not None:
            raise UserError("--model needs texts to run on", hint="name them with --dataset")
        refuse_given(options, "is for --dataset: a run already has its texts", "leave it out")
        return None
    fill_in(options)
    return LiveTexts(
        dataset_of(options, options.token_limit),
        model_of(options) if options.model is not None else None,
        **rows_of(options),
    )


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
