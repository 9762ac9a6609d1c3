"""`mi-crow train`: an SAE on the activations of a run."""

import math
from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_seed,
    device_of,
    open_workspace,
    positive,
)
from mi_crow.cli.following import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.cli.text import count, duration, number, share
from mi_crow.errors import NotFoundError, UserError
from mi_crow.jobs.spec import config_as_json
from mi_crow.mechanistic.sae.config import ARCHITECTURES, SaeTrainingConfig, TrainConfig
from mi_crow.store.manifest import RunManifest
from mi_crow.store.workspace import Workspace

DEFAULT_PASSES = 2
LEAST_STEPS = 400


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("--run", required=True, help="the run to train on")
    parser.add_argument("--layer", help="one of the run's layers; may be left out if it has one")
    parser.add_argument("--arch", default="topk", choices=ARCHITECTURES, help="(topk)")
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--expansion", type=float, default=8.0, help="latents an input (8)")
    width.add_argument("--n-latents", type=positive, help="latents, instead of --expansion")
    parser.add_argument("--k", type=positive, default=32, help="active latents a token (32)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=positive,
        help=f"training steps (default: {DEFAULT_PASSES} passes over the run's tokens, "
        f"at least {LEAST_STEPS} steps)",
    )
    length.add_argument("--epochs", type=positive, help="passes, instead of --steps")
    parser.add_argument("--batch-size", type=positive, default=2048, help="tokens a step (2048)")
    parser.add_argument("--lr", type=float, help="learning rate (2e-4 / sqrt(latents / 2^14))")
    parser.add_argument("--warmup-steps", type=positive, help="(a tenth of the run, at most 1000)")
    parser.add_argument(
        "--outlier-factor",
        type=float,
        default=10.0,
        help="leave out tokens above this times the median norm; 0 keeps all (10)",
    )
    parser.add_argument("--checkpoint-every", type=positive, default=500, help="steps (500)")
    parser.add_argument("--log-every", type=positive, default=10, help="steps (10)")
    parser.add_argument("--name", help="the SAE's id; made from the time otherwise")
    add_device(parser)
    add_seed(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    manifest = _manifest(workspace, options)
    config = TrainConfig(
        run_id=options.run,
        layer=_layer(options.layer, manifest),
        arch=options.arch,
        expansion=options.expansion,
        n_latents=options.n_latents,
        k=options.k,
        training=SaeTrainingConfig(
            **_length(options, manifest),
            batch_size=options.batch_size,
            lr=options.lr,
            warmup_steps=options.warmup_steps,
            outlier_factor=options.outlier_factor or None,
            checkpoint_every=options.checkpoint_every,
            log_every=options.log_every,
            seed=options.seed,
        ),
        device=device_of(options),
        name=options.name,
    )
    return run_job(workspace, "train", config_as_json(config), options, show_result)


def _manifest(workspace: Workspace, options: Namespace) -> RunManifest | None:
    """The run's manifest; None when another job is still to make the run."""
    try:
        return RunManifest.load(workspace.run_dir(options.run))
    except NotFoundError:
        if options.after is None:
            raise
        return None


def _layer(layer: str | None, manifest: RunManifest | None) -> str:
    if layer is not None:
        return layer
    names = [spec.name for spec in manifest.layers] if manifest else []
    if len(names) != 1:
        known = ", ".join(names)
        raise UserError(
            "no layer given", hint=f"choose with --layer: {known}" if known else "use --layer"
        )
    return names[0]


def _length(options: Namespace, manifest: RunManifest | None) -> dict[str, int]:
    """`steps` or `epochs`: what was asked for, else two passes but at least 400 steps."""
    if options.steps is not None:
        return {"steps": options.steps}
    if options.epochs is not None or manifest is None or manifest.status != "complete":
        return {"epochs": options.epochs or DEFAULT_PASSES}
    passes = math.ceil(DEFAULT_PASSES * manifest.n_tokens / options.batch_size)
    return {"steps": max(LEAST_STEPS, passes)}


def show_result(result: dict[str, Any]) -> None:
    print_facts(
        {
            "SAE": result["sae_id"],
            "steps": f"{count(result['steps'])} on {count(result['tokens'])} tokens",
            "fvu": f"{number(result['fvu'])} on held-out tokens "
            f"({number(result['fvu_all'])} with the {share(result['outlier_share'])} outliers)",
            "l0": number(result["l0"]),
            "dead": share(result["dead_share"]),
            "time": duration(result["seconds"]),
            "next": f"mi-crow index --sae {result['sae_id']}",
        }
    )
