"""`mi-crow library`: the published SAEs that can be imported."""

import shlex
from argparse import ArgumentParser, Namespace

from mi_crow.bounds import AMOUNT
from mi_crow.cli.arguments import add_setting, add_switch, number_within, positive
from mi_crow.cli.formatting import count, number, print_json, size
from mi_crow.cli.tables import print_line, print_list
from mi_crow.errors import UserError
from mi_crow.hub import is_offline
from mi_crow.mechanistic.sae.library.published import (
    CHECKED,
    ORDERS,
    QUERY_HELP,
    PublishedSae,
    search,
)

_SHOWN = 30


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("query", nargs="*", metavar="WORD", help=f"what to look for: {QUERY_HELP}")
    parser.add_argument("--model", help="part of the model's name")
    parser.add_argument("--layer", type=number_within(AMOUNT), help="number of the block")
    parser.add_argument("--search", metavar="WORDS", help="the same as WORD")
    parser.add_argument("--sort", metavar="ORDER", help=f"{', '.join(ORDERS)}; unknown ones last")
    add_switch(parser, "--descending", "the largest first")
    add_switch(parser, "--offline", "only what the hub's cache holds")
    add_setting(parser, "--limit", _SHOWN, "maximum number of SAEs", type=positive)


def run(options: Namespace) -> int:
    words = [*options.query, options.search or ""]
    if options.model is not None:
        words.append(f"model:{options.model}")
    if options.layer is not None:
        words.append(f"layer:{options.layer}")
    if options.descending and options.sort is None:
        raise UserError("--descending needs --sort", hint=f"sort by {', '.join(ORDERS)}")
    if options.sort is not None:
        words.append(f"sort:{'-' if options.descending else ''}{options.sort}")
    query = " ".join(words)
    offline = (options.offline or is_offline()) and "cached:" not in query
    found = search(f"{query} cached:yes" if offline else query, options.limit)
    if options.json:
        saes = [sae.as_json() | {"command": import_command(sae)} for sae in found.saes]
        print_json({"total": found.total, "saes": saes})
        return 0
    empty = "no published SAE is like that; try fewer words and conditions, or only --model"
    if offline:
        empty = "the hub's cache holds no such SAE; offline, cached:no lists those of the hub"
    several = found.models > 1
    here = any(sae.cached for sae in found.saes)
    columns = ["hook point…", ">latents", ">L0", ">size", "…source"]
    columns[0:0] = ["…model"] if several else []
    columns[-1:-1] = ["here"] if here else []
    cells = (_cells(sae, several=several, here=here) for sae in found.saes)
    print_list(False, found.saes, columns, cells, empty)
    if found.saes:
        shown, total = len(found.saes), found.total
        number_of = f"{count(shown)} of {count(total)}" if shown < total else count(total)
        model = "" if several else f" for {found.saes[0].model}"
        where = " in the hub's cache" if offline else ""
        sizes = "; sizes are computed from widths" if any(one.bytes for one in found.saes) else ""
        print_line(f"{number_of} SAE{'' if total == 1 else 's'}{model}{where}{sizes}")
        print_line(f"import one: {import_command(found.saes[0])}")
    return 0


def _cells(sae: PublishedSae, *, several: bool, here: bool) -> list[str]:
    return [
        *([sae.model] if several else []),
        sae.place,
        count(sae.width) if sae.width is not None else "",
        number(sae.l0) if sae.l0 is not None else "",
        f"~{size(sae.bytes)}" if sae.bytes is not None else "",
        *(["yes" if sae.cached else ""] if here else []),
        sae.source,
    ]


def import_command(sae: PublishedSae) -> str:
    """The command that imports it and measures whether it fits its hook point."""
    words = ["mi-crow", "import", sae.source]
    if sae.model:
        words += ["--model", sae.model]
    words += ["--check", "--tokens", str(CHECKED)]
    if sae.scale is not None:
        words += ["--scale", f"{sae.scale:.10g}"]
    if sae.centred:
        words.append("--centred")
    if sae.neuronpedia:
        words.append("--names")
    return shlex.join(words)
