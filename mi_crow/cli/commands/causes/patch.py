"""`mi-crow patch`: where the difference between two prompts is decided."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import add_device, feature_number
from mi_crow.cli.commands.causes.inspections import add_save, check_save, save
from mi_crow.cli.commands.causes.lens import add_model_or_sae, add_token, model_and_sae
from mi_crow.cli.formatting import number
from mi_crow.cli.tables import Column, print_facts, print_line, print_result, print_table
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import UserError

_COLUMNS = 14  # tokens that fit a table
_STRONGEST = 12
_LEAST, _LEAST_SHOWN = 0.0005, 0.005  # shares below which a figure would be -0.0% or -0%


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_model_or_sae(parser)
    parser.add_argument("clean", help="the prompt whose answer is to come back")
    parser.add_argument("corrupted", help="the prompt that is patched, of as many tokens")
    parser.add_argument("--target", metavar="TOKEN", help="the clean answer, e.g. ' Paris'")
    parser.add_argument("--against", metavar="TOKEN", help="the other answer, e.g. ' Rome'")
    parser.add_argument(
        "--what",
        choices=("resid", "attn", "mlp", "sae"),
        default=None,
        help="restore the stream (the default), what attention or the MLP adds, or what an SAE's "
        "features add",
    )
    parser.add_argument(
        "--feature", type=feature_number, metavar="N", help="restore only this feature of the SAE"
    )
    add_token(parser, "after which token the answers are compared (default: the last)")
    add_device(parser)
    add_bos(parser)
    add_save(parser)


def run(options: Namespace) -> int:
    if options.feature is not None and options.what not in (None, "sae"):
        raise UserError(
            f"--feature does not go with --what {options.what}", hint="leave out --what"
        )
    with_sae = options.what == "sae" or options.feature is not None
    if with_sae and options.model is not None:
        raise UserError("--model names no SAE", hint="give --sae instead")
    check_save(options)
    lm, loaded = model_and_sae(options, with_sae=with_sae)
    from mi_crow.mechanistic.attribution.two_prompts import patch_prompts

    result = patch_prompts(
        lm,
        options.clean,
        options.corrupted,
        module=options.what if options.what in ("attn", "mlp") else "resid",
        loaded=loaded if with_sae else None,
        feature=options.feature,
        target=options.target,
        against=options.against,
        position=options.token,
        bos=options.bos if loaded is None else loaded.sae.metadata.bos(options.bos),
    )
    code = print_result(options.json, result, _show)
    sae_ids = [loaded.sae_id] if loaded is not None and with_sae else []
    save(options, "patch", options.clean, result, sae_ids)
    return code


def _show(result: dict[str, Any]) -> None:
    tokens, points, effects = result["tokens"], result["points"], result["effects"]
    for note in result["notes"]:
        print_line(note, "yellow")
    print_facts(
        {
            "target": result["target"]["words"],
            "clean": number(result["clean"]),
            "corrupted": number(result["corrupted"]),
            "restored": result["what"],
        }
    )
    print_line()
    if len(tokens) <= _COLUMNS:
        columns = [Column(repr(token)[1:-1], right=True) for token in tokens]
        rows = [
            [
                point,
                *(f"{100 * value:.0f}%" if abs(value) >= _LEAST_SHOWN else "0%" for value in row),
            ]
            for point, row in zip(points, effects, strict=True)
        ]
        print_table(["at", *columns], rows)
        print_line()
    cells = [
        (abs(value), value, point, token)
        for point, row in zip(points, effects, strict=True)
        for token, value in enumerate(row)
        if abs(value) >= _LEAST
    ]
    strongest = sorted(cells, key=lambda one: -one[0])[:_STRONGEST]
    print_table(
        [">restored", "at", ">token", "text"],
        [[f"{100 * v:.1f}%", p, str(t), repr(tokens[t])] for _, v, p, t in strongest],
    )
