"""`mi-crow train`: an SAE on the activations of a run."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from shlex import quote
from typing import Any

from mi_crow.bounds import EXPANSION, FACTOR, LATENTS, NOT_NEGATIVE
from mi_crow.cli.arguments import (
    add_fields,
    add_job,
    add_model_flags,
    add_setting,
    add_switch,
    device_of,
    number_within,
    open_workspace,
    plan_workspace,
)
from mi_crow.cli.commands.training.plan import add_estimate_flags, print_estimate
from mi_crow.cli.formatting import count, duration, number, share
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
from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.config import CaptureConfig
from mi_crow.mechanistic.sae.config import (
    AIM_FOR_L0_IN_WORDS,
    ARCHITECTURES,
    CLI_MIN_STEPS,
    CLI_PASSES,
    CLI_STREAM_STEPS,
    CLT,
    CROSSCODER,
    FINETUNE_STEPS,
    NONE,
    SAE,
    SaeTrainingConfig,
    TrainConfig,
    default_steps,
)
from mi_crow.mechanistic.sae.parallel.settings import SHARES
from mi_crow.same_fields import same_fields
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace

_OF_A_STREAM = ("model", *OF_A_MODEL, "dataset", *OF_TEXTS)


def add_arguments(parser: ArgumentParser, command: str) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="run to train on")
    add_switch(
        source,
        "--stream",
        "capture activations while training instead of reading a run; see model and texts",
    )
    parser.add_argument(
        "--layer",
        type=_several(str),
        action="append",
        help="layer; optional for a run that has only one; repeatable: an SAE of each, or with "
        "--crosscoder and --clt one of all",
    )
    tuned = (
        "with --crosscoder: run of a model made from that of --run, over the same texts; the "
        "latents read both models, and each is told to be of both or of one (model diffing)"
    )
    streamed = "with --stream --crosscoder: the same of a model made from that of --model"
    revision = "revision of --tuned-model"
    add_fields(
        parser,
        TrainConfig,
        {"tuned_run": tuned, "tuned_model": streamed, "tuned_revision": revision},
    )
    _add_sae(parser)
    _add_length(parser)
    _add_recipe(parser)
    logs = {
        "checkpoint_minutes": "minutes between checkpoints, from which a stopped training resumes",
        "checkpoint_every": "steps between further checkpoints",
        "log_every": "steps between logged metrics",
    }
    add_fields(parser, SaeTrainingConfig, logs)
    add_fields(parser, TrainConfig, {"logger": "also send metrics there"})
    parser.add_argument("--name", help="id of the SAE (default: from time and architecture)")
    add_model_flags(parser, default=None)
    add_text_flags(parser, default=None)
    leave_out(parser, _OF_A_STREAM)
    add_estimate_flags(parser)
    add_job(parser, ranked=True)


def _add_sae(parser: ArgumentParser) -> None:
    group = parser.add_argument_group(
        "SAE", "several values of --k or --expansion (16,32,64) train one SAE each, side by side"
    )
    group.add_argument(
        "--arch",
        choices=ARCHITECTURES,
        metavar="ARCH",
        help=f"architecture: {', '.join(ARCHITECTURES)} (default: topk; batchtopk for SAEs over "
        "several layers)",
    )
    across = group.add_mutually_exclusive_group()
    add_switch(
        across,
        "--crosscoder",
        "one set of latents that reads and reconstructs all layers given; --expansion is of one",
    )
    add_switch(
        across,
        "--clt",
        "a cross-layer transcoder: latents of each mlp_in.N given, which predict mlp_out.N and "
        "those of all later layers given; --n-latents are of each layer, --k is over all",
    )
    width = group.add_mutually_exclusive_group()
    width.add_argument(
        "--expansion",
        type=_several(number_within(EXPANSION)),
        action="append",
        help="latents per input dimension (default: 8)",
    )
    add_fields(width, TrainConfig, {"n_latents": "number of latents, instead of --expansion"})
    group.add_argument(
        "--k",
        type=_several(number_within(LATENTS)),
        action="append",
        help=f"active latents per token (default: 32); {AIM_FOR_L0_IN_WORDS} aim for it as L0",
    )
    add_fields(
        group.add_mutually_exclusive_group(),
        SaeTrainingConfig,
        {
            "target_l0": f"L0 to aim for with {AIM_FOR_L0_IN_WORDS}, instead of --k",
            "l1_lambda": "fixed sparsity coefficient, instead of a target",
        },
    )
    penalty = (
        "sparsity penalty: the number of latents that fire (step), or for jumprelu also a tanh "
        "of each"
    )
    add_fields(group, SaeTrainingConfig, {"penalty": penalty})
    group.add_argument("--target-layer", help="layer that a transcoder predicts")
    add_switch(group, "--skip", "give a transcoder a skip connection")
    group.add_argument(
        "--init", metavar="SAE", help="continue training this SAE, given by id or path"
    )
    kl = (
        "kl: with --init, train it on the model's predictions too (KL with and without the SAE), "
        f"{FINETUNE_STEPS} steps by default"
    )
    add_fields(group, TrainConfig, {"finetune": kl})


def _add_length(parser: ArgumentParser) -> None:
    add_fields(
        parser.add_mutually_exclusive_group(),
        SaeTrainingConfig,
        {
            "steps": f"training steps (default: {CLI_PASSES} passes over the run's tokens, "
            f"at least {CLI_MIN_STEPS} steps; {CLI_STREAM_STEPS} with --stream)",
            "epochs": "passes over the run, instead of --steps",
            "tokens": "training tokens, instead of --steps",
        },
    )


def _add_recipe(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("recipe")
    pieces = "split a batch into this many pieces to save memory"
    add_fields(group, SaeTrainingConfig, {"batch_size": "tokens per step", "accumulate": pieces})
    group.add_argument(
        "--lr",
        type=number_within(FACTOR, "the learning rate"),
        help="learning rate (default: 2e-4 / sqrt(latents / 2^14))",
    )
    warmup = "learning rate warm-up (default: a tenth of the steps, at most 1000)"
    add_fields(group, SaeTrainingConfig, {"warmup_steps": warmup})
    add_setting(
        group,
        "--outlier-factor",
        10.0,
        "exclude tokens whose norm is above this multiple of the median; 0 keeps all",
        type=number_within(NOT_NEGATIVE),
    )
    add_fields(
        group,
        SaeTrainingConfig,
        {
            "precision": "precision of the encoder",
            "orthogonality": "coefficient of a loss that keeps decoder rows apart (OrtSAE), "
            "e.g. 0.25",
            "whiten": "train on whitened activations (their covariance takes d^2 numbers); the SAE "
            "that is saved reads plain ones",
            "shrinkage": "share of even variance in the covariance that --whiten uses",
            "aligned": "keep the inner product of each latent's encoder and decoder row at one",
        },
    )
    add_setting(
        group,
        "--share",
        "tokens",
        "what several processes share out: the tokens of a batch, or the latents of an SAE "
        "too wide for one device",
        choices=SHARES,
    )
    both = "with --share latents: copies of the SAE that share the tokens of each batch"
    sent = "what processes that share tokens send their gradients in"
    add_fields(group, TrainConfig, {"copies": both, "gradients": sent})
    control = "control: take every dimension from another token, so that no structure is left"
    add_fields(group, SaeTrainingConfig, {"shuffled": control})


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """An argument type: one value, or several separated by commas."""

    def read(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    return read


def run(options: Namespace) -> int:
    _refuse_what_a_run_has(options)
    stream = _stream(options) if options.stream else None
    workspace = plan_workspace(options) if stream else open_workspace(options)
    manifest = None if stream else _manifest(workspace, options)
    ks, expansions = _flat(options.k), _flat(options.expansion)
    family = CROSSCODER if options.crosscoder else CLT if options.clt else SAE
    layers = tuple(_flat(options.layer))
    if options.tuned_run is not None and not layers:
        layers = (_only_layer(manifest),)
    _refuse_shape_of_another(options, ks, expansions)
    config = same_fields(
        TrainConfig,
        options,
        run_id=options.run or "",
        layer=layers[0] if layers else _only_layer(manifest),
        layers=layers if len(layers) > 1 or family != SAE else (),
        stream=stream,
        arch=options.arch or ("topk" if family == SAE else "batchtopk"),
        family=family,
        expansion=expansions[0] if expansions else 8.0,
        k=ks[0] if ks else 32,
        sweep_k=tuple(ks) if len(ks) > 1 else (),
        sweep_expansion=tuple(expansions) if len(expansions) > 1 else (),
        training=same_fields(
            SaeTrainingConfig,
            options,
            **_length(options, manifest),
            outlier_factor=options.outlier_factor or None,
        ),
        shares=options.share,
        device=device_of(options),
    )
    if options.estimate:
        print_estimate(workspace, config, options)
        return 0
    show = partial(show_result, source=_source_of_index(config))
    return run_job(workspace, "train", config, options, show)


def _source_of_index(config: TrainConfig) -> str:
    """What an index has to be told of a training without a run: its texts."""
    if config.stream is None:
        return ""
    return f" --dataset {quote(config.stream.dataset.source)}"


def _flat(given: list[list[Any]] | None) -> list[Any]:
    """The distinct values of a repeatable flag that accepts several."""
    return list(dict.fromkeys(value for values in given or [] for value in values))


def _refuse_shape_of_another(options: Namespace, ks: list[int], expansions: list[float]) -> None:
    """A continued SAE keeps its architecture and size. Raises UserError."""
    if options.init is None:
        return
    given = {
        "--arch": options.arch,
        "--expansion": expansions,
        "--n-latents": options.n_latents,
        "--skip": options.skip,
    }
    for flag, value in given.items():
        if value:
            raise UserError(f"{flag} is decided by the SAE that --init names", hint="leave it out")
    if len(ks) > 1:
        raise UserError("several --k cannot start from one SAE", hint="leave out --init")


def _refuse_what_a_run_has(options: Namespace) -> None:
    """A run's model and texts are those it was captured from. Raises UserError."""
    if not options.stream:
        because = f"is for --stream: run {options.run!r} already has its model and texts"
        refuse_given(options, because, "leave it out, or leave out --run")


def _stream(options: Namespace) -> CaptureConfig:
    """The model and texts to train on. Raises UserError."""
    if not options.layer:
        raise UserError("no layer given", hint="choose one with --layer")
    fill_in(options)
    options.model, options.dataset = options.model or "sample", options.dataset or "sample"
    return CaptureConfig(
        model=model_of(options),
        dataset=dataset_of(options),
        layers=tuple(_flat(options.layer)),
        **rows_of(options),
        seed=options.seed,
    )


def _manifest(workspace: Workspace, options: Namespace) -> RunManifest | None:
    """The run's manifest; None when the job named by --after has yet to make the run."""
    try:
        return RunManifest.load(workspace.run_dir(options.run))
    except NotFoundError:
        if options.after is None:
            raise
        return None


def _only_layer(manifest: RunManifest | None) -> str:
    """The layer of a run that has one. Raises UserError."""
    names = [spec.name for spec in manifest.layers] if manifest else []
    if len(names) != 1:
        known = ", ".join(names)
        raise UserError(
            "no layer given", hint=f"choose one with --layer: {known}" if known else "use --layer"
        )
    return names[0]


def _length(options: Namespace, manifest: RunManifest | None) -> dict[str, Any]:
    """`steps`, `epochs` or `tokens`: as given, else two passes but at least 400 steps."""
    if options.steps is not None:
        return {"steps": options.steps}
    if options.tokens is not None:
        return {"tokens": options.tokens}
    if options.finetune != NONE and options.epochs is None:
        return {"steps": FINETUNE_STEPS}
    if options.stream:
        if options.epochs is not None:
            raise UserError(
                "a stream has no epochs", hint="set the length with --steps or --tokens"
            )
        return {"steps": CLI_STREAM_STEPS}
    if options.epochs is not None or manifest is None or manifest.status != "complete":
        return {"epochs": options.epochs or CLI_PASSES}
    return {"steps": default_steps(manifest.n_tokens, options.batch_size)}


def _finetuned(one: dict[str, Any]) -> dict[str, str]:
    """What a finetune has measured besides."""
    if "ce_added_before" not in one:
        return {}
    before = number(one["ce_added_before"], 4)
    return {"CE added": f"{number(one['ce_added'], 4)} on held-out documents ({before} before)"}


def show_result(result: dict[str, Any], source: str = "") -> None:
    for one in result.get("saes", [result]):
        print_facts(
            {
                "SAE": one["sae_id"],
                "steps": f"{count(one['steps'])} on {count(one['tokens'])} tokens",
                "FVU": f"{number(one['fvu'])} on held-out tokens "
                f"({number(one['fvu_all'])} with the {share(one['outlier_share'])} outliers)",
                "L0": number(one["l0"]),
                "dead": share(one["dead_share"]),
                **_finetuned(one),
                "time": duration(one["seconds"]),
                "next": f"mi-crow index --sae {one['sae_id']}{source}",
            }
        )
