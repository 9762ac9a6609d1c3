"""`mi-crow evaluate`: the quality of an SAE."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from mi_crow.cli.arguments import (
    add_batch_size,
    add_fields,
    add_job,
    add_sae,
    device_of,
    open_workspace,
    sae_to_read,
)
from mi_crow.cli.formatting import count, number, share
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts, print_table
from mi_crow.cli.text_flags import add_live_texts, live_texts
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.probe_rows import probe_rows
from mi_crow.same_fields import same_fields


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument("--run", help="run to read (default: the one it was trained on)")
    add_fields(
        parser,
        EvaluateConfig,
        {
            "tuned_run": "of a crosscoder of two models: run of the tuned one (default: its own)",
            "documents": "held-out documents for the loss",
            "precision": "precision of the encoder's product (default: auto, which is bf16 on CUDA "
            "for topk, else fp32); latents are chosen, and count, in fp32",
        },
    )
    add_batch_size(
        parser,
        "documents per batch of the loss (default: auto, which is 8, on CUDA 64); halved when "
        "memory runs out",
    )
    add_live_texts(parser)
    add_job(parser, ranked=True)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id, device = sae_to_read(workspace, options), device_of(options)
    live = live_texts(options)
    config = same_fields(
        EvaluateConfig,
        options,
        sae_id=sae_id,
        run_id=options.run,
        live=live,
        model=None if live is not None else options.model,
        device=device,
    )
    return run_job(workspace, "evaluate", config, options, show_result)


def show_result(result: dict[str, Any]) -> None:
    print_facts(
        {
            **_texts(result),
            "FVU": f"{number(result['fvu'])} (all tokens: {number(result.get('fvu_all'))})",
            "explained variance": f"{share(result['explained_variance'])}, "
            f"cosine {number(result.get('cosine'))}",
            "L0": number(result["l0"]),
            **_rounding(result),
            "dead": f"{share(result['dead_share'])}, dense {share(result['dense_share'])}",
            **_loss(result),
            **origins_fact(result),
        }
    )
    _show_layers(result.get("layers") or ())
    _show_models(result.get("models") or ())
    _show_probes(result.get("probes") or {})


def _texts(result: Mapping[str, Any]) -> dict[str, str]:
    """Which texts were read, where that was no run."""
    dataset = result.get("dataset")
    return {"texts": str(dataset["source"])} if dataset else {}


def _rounding(result: Mapping[str, Any]) -> dict[str, str]:
    """What a rounded product changed; nothing in fp32."""
    if "other_sets" not in result:
        return {}
    return {"bf16": f"other latents than in fp32 on {share(result['other_sets'])} of the tokens"}


def _loss(result: Mapping[str, Any]) -> dict[str, str]:
    """What replacing the layer, or all layers at once, costs the model; nothing in evaluations
    of SAEs over several layers that are older than this figure."""
    if "ce_original" not in result:
        return {}
    c_dec = result.get("c_dec")
    return {
        **({} if c_dec is None else {"decoder correlation": f"{number(c_dec)} (c_dec)"}),
        "CE (nats)": f"original {number(result['ce_original'])}, "
        f"SAE {number(result['ce_reconstructed'])}, zero {number(result['ce_zero'])}, "
        f"mean {number(result.get('ce_mean'))}",
        "loss recovered": f"{share(result['loss_recovered'])}, KL {number(result['kl'])} nats",
    }


def origins_fact(result: Mapping[str, Any]) -> dict[str, str]:
    """Of a crosscoder of two models how many latents are of each."""
    origins = result.get("origins")
    if not origins:
        return {}
    return {"latents": ", ".join(f"{name} {count(n)}" for name, n in origins.items())}


def _show_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    """Of an SAE over several layers the figures of each."""
    if not layers:
        return
    own = "l0" in layers[0]  # not where its latents are of all layers
    print_table(
        ["layer", ">FVU", *((">L0", ">dead") if own else ())],
        [
            [
                one["layer"],
                number(one["fvu"]),
                *((number(one["l0"]), share(one["dead_share"])) if own else ()),
            ]
            for one in layers
        ],
    )


def _show_models(models: Sequence[Mapping[str, Any]]) -> None:
    """Of a crosscoder of two models what replacing its layers costs each."""
    if models:
        print_table(
            ["model", ">CE", ">CE with SAE", ">CE zero", ">loss recovered", ">KL"],
            [
                [
                    one["model"],
                    *(number(one[f"ce_{name}"]) for name in ("original", "reconstructed", "zero")),
                    share(one["loss_recovered"]),
                    number(one["kl"]),
                ]
                for one in models
            ],
        )


def _show_probes(probes: Mapping[str, Any]) -> None:
    rows = probe_rows(probes)
    if not rows:
        return
    ks = list(dict.fromkeys(k for row in rows for k in row.by_k))
    print_table(
        ["probe", *(f">k={k}" for k in ks), ">all"],
        [
            [row.probe, *(number(row.by_k.get(k), 3) for k in ks), number(row.everything, 3)]
            for row in rows
        ],
    )
