"""`mi-crow library`: the published SAEs that can be imported."""

import shlex
from argparse import ArgumentParser, Namespace

from mi_crow.bounds import AMOUNT
from mi_crow.cli.arguments import add_setting, number_within, positive
from mi_crow.cli.formatting import count, number, print_json, size
from mi_crow.cli.tables import print_line, print_list
from mi_crow.mechanistic.sae.library.published import CHECKED, QUERY_HELP, PublishedSae, search

_SHOWN = 30


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("query", nargs="*", metavar="WORD", help=f"what to look for: {QUERY_HELP}")
    parser.add_argument("--model", help="part of the model's name")
    parser.add_argument("--layer", type=number_within(AMOUNT), help="number of the block")
    parser.add_argument("--search", metavar="WORDS", help="the same as WORD")
    add_setting(parser, "--limit", _SHOWN, "maximum number of SAEs", type=positive)


def run(options: Namespace) -> int:
    words = [*options.query, options.search or ""]
    if options.model is not None:
        words.append(f"model:{options.model}")
    if options.layer is not None:
        words.append(f"layer:{options.layer}")
    found = search(" ".join(words), options.limit)
    if options.json:
        saes = [sae.as_json() | {"command": import_command(sae)} for sae in found.saes]
        print_json({"total": found.total, "saes": saes})
        return 0
    columns = ["source…", "model…", "hook point…", ">latents", ">L0", ">size", "here"]
    empty = "no published SAE is called so; try fewer words, or only --model"
    print_list(False, found.saes, columns, map(_row, found.saes), empty)
    if found.saes:
        rest = f"{count(len(found.saes))} of {count(found.total)}; " if found.total > 1 else ""
        print_line(f"{rest}import one: {import_command(found.saes[0])}")
    return 0


def _row(sae: PublishedSae) -> list[str]:
    return [
        sae.source,
        sae.model,
        " → ".join(filter(None, (sae.hook_point, sae.target))),
        count(sae.width) if sae.width is not None else "",
        number(sae.l0) if sae.l0 is not None else "",
        size(sae.bytes) if sae.bytes is not None else "",
        "yes" if sae.cached else "",
    ]


def import_command(sae: PublishedSae) -> str:
    """The command that imports it and measures whether it fits its hook point."""
    words = ["mi-crow", "import", sae.source, "--model", sae.model]
    words += ["--check", "--tokens", str(CHECKED)]
    if sae.scale is not None:
        words += ["--scale", f"{sae.scale:.10g}"]
    if sae.centred:
        words.append("--centred")
    if sae.neuronpedia:
        words.append("--names")
    return shlex.join(words)
