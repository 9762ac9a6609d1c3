"""`mi-crow attribute`: which features made the model say what it says."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mi_crow.bounds import SHARE
from mi_crow.cli.arguments import (
    add_device,
    add_seed,
    add_setting,
    add_switch,
    device_of,
    number_within,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.causes.inspections import add_save, check_save, save
from mi_crow.cli.commands.causes.lens import add_token, add_windows
from mi_crow.cli.commands.causes.text import text_of
from mi_crow.cli.formatting import number, share, size
from mi_crow.cli.tables import print_facts, print_line, print_result, print_table
from mi_crow.cli.text_flags import add_bos
from mi_crow.mechanistic.attribution.question import Question
from mi_crow.mechanistic.concepts.inspection_words import (
    MEANINGS,
    doubt,
    figure_name,
    which_token,
    without_causes,
)
from mi_crow.same_fields import same_fields

_TOKENS = 4
_LEAST = 1e-6  # of the target: parts below it are rounding


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_saes(parser)
    parser.add_argument("text", help="the prompt, or `-` for standard input")
    parser.epilog = "In the answer: " + "; ".join(f"{k} – {v}" for k, v in MEANINGS) + "."
    group = parser.add_argument_group("target")
    group.add_argument(
        "--target",
        metavar="TOKEN",
        help='the next token to explain, e.g. " Paris"; a word that is no token is tried with a '
        "space before it (default: the likeliest; `a` in the app explains the text's own)",
    )
    group.add_argument(
        "--against", metavar="TOKEN", help='explain its logit minus that of this one, e.g. " Rome"'
    )
    add_switch(
        group,
        "--log-prob",
        "explain its log probability, not what its logit is above the mean of all logits",
    )
    add_switch(group, "--raw-logit", "explain its logit as it is, with what all logits share")
    group.add_argument(
        "--feature",
        metavar="SAE/N",
        help="explain the activation of feature N of a later SAE among those given",
    )
    add_token(
        group,
        "after which token of the text, counted from 0 with BOS where it is added, or from the end "
        "with -1 (default: the last, where the app's `a` takes the one under the cursor; for a "
        "feature where it is strongest)",
    )
    add_setting(parser, "--top", 20, "causes to list and to check", type=positive)
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="M",
        help="integrated gradients: average the gradient over M points",
    )
    add_windows(parser)
    add_setting(
        parser,
        "--prune",
        0.02,
        "share of all effects that a node of the tree needs",
        type=number_within(SHARE, "--prune"),
        metavar="SHARE",
    )
    add_seed(parser)
    add_device(parser)
    add_bos(parser)
    add_save(parser)


def add_saes(parser: ArgumentParser) -> None:
    """--sae, which may be repeated."""
    parser.add_argument(
        "--sae",
        action="append",
        default=[],
        help="SAE id, repeatable for SAEs of different layers; optional when there is only one",
    )


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_ids = [pick_sae(workspace, one) for one in options.sae or [None]]
    from mi_crow.mechanistic.attribution.run import attribute_prompt

    question = same_fields(
        Question, options, log_probability=options.log_prob, position=options.token
    )
    text = text_of(options.text)
    check_save(options)

    def tell(memory: int) -> None:
        if not options.json:
            print_line(f"takes about {size(memory)} of memory beside the model", "dim")

    result = attribute_prompt(workspace, sae_ids, text, question, device_of(options), tell)
    code = print_result(options.json, result, _show)
    save(options, "attribute", text, result, sae_ids)
    return code


def _show(result: dict[str, Any]) -> None:
    target, tokens, which = result["target"], result["tokens"], which_token(result)
    for note in result["notes"]:
        print_line(note, "yellow")
    print_facts(
        {
            "target": target["words"] + (f" ({which})" if which else ""),
            "after": f"token {target['position']} {tokens[target['position']]!r}",
            "value": number(result["value"]),
            "model": result["model_id"],  # of a crosscoder of two: the tuned one
            "model says": _predictions(result["predictions"]),
        }
    )
    for one in result["saes"]:
        print_line()
        print_line(f"{one['sae_id']} at {one['point']}", "bold")
        _show_sae(one, tokens, result["value"])
    if len(result["saes"]) > 1 or any(one["children"] for one in result["tree"]):
        print_line()
        print_line("which features act through which", "bold")
        for line in tree_lines(result["tree"]):
            print_line(line)


def _predictions(rows: Sequence[dict[str, Any]]) -> str:
    return "  ".join(f"{one['token']!r} {share(one['probability'])}" for one in rows[:5])


def _show_sae(found: dict[str, Any], tokens: list[str], value: float) -> None:
    layered = any("layer" in one for one in found["causes"])
    rows = [
        [
            str(one["feature"]),
            *([one["layer"]] if layered else []),
            f"{one['effect']:+.3g}",
            share(one["share"]),
            f"{one['measured']:+.3g}",
            name_of(one),
            "  ".join(repr(tokens[token]) for token, _ in one["tokens"][:_TOKENS]),
        ]
        for one in found["causes"]
    ]
    columns = [">feature", *(["layer"] if layered else []), ">effect", ">share", ">ablated"]
    print_table([*columns, "name…", "on…"], rows)
    parts = {key: _unless_rounding(part, value) for key, part in found["parts"].items()}
    print_line(", ".join(f"{figure_name(key)} {part}" for key, part in parts.items()))
    if found.get("by_layer"):
        _show_layers(found["by_layer"], value)
    check = found["check"]
    if check is None:
        print_line(without_causes(found), "yellow")
        return
    print_line(
        f"{len(rows)} ablated together {check['together']:+.3g}, predicted "
        f"{check['predicted_sum']:+.3g}; correlation {number(check['correlation'], 3)}, rank "
        f"correlation {number(check['rank_correlation'], 3)}"
    )
    print_line(
        f"faithfulness {number(check['faithfulness'], 3)} (random features "
        f"{number(check['random_faithfulness'], 3)}), completeness "
        f"{number(check['completeness'], 3)} (random {number(check['random_completeness'], 3)})"
    )
    if warning := doubt(check, value):
        print_line(warning, "yellow")


def _show_layers(layers: Sequence[dict[str, Any]], value: float) -> None:
    """The parts at each layer of an SAE over several."""
    names = [name for name in layers[0] if name != "point"]
    rows = [
        [one["point"], *(_unless_rounding(one[name], value) for name in names)] for one in layers
    ]
    print_table(["at layer", *(f">{figure_name(name)}" for name in names)], rows)


def _unless_rounding(part: float, value: float) -> str:
    return f"{part if abs(part) > _LEAST * abs(value) else 0:+.3g}"


def name_of(known: dict[str, Any]) -> str:
    """A feature's name or label."""
    from mi_crow.mechanistic.steering.known import shown_name

    return shown_name(known)


def tree_lines(tree: Sequence[dict[str, Any]], depth: int = 0) -> list[str]:
    """The tree, each level indented by two cells."""
    lines = []
    for one in tree:
        name = name_of(one)
        words = f"{one['effect']:+.3g}  {one['sae_id']}/{one['feature']}"
        words += f" {one['layer']}" if "layer" in one else ""
        lines.append("  " * depth + words + (f"  {name}" if name else ""))
        lines += tree_lines(one["children"], depth + 1)
    return lines
