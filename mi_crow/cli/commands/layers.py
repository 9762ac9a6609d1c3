"""`mi-crow layers`: a model's hook points, and what its blocks do on a text."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from mi_crow.clean_text import clean_text
from mi_crow.cli.arguments import add_device, add_model_flags
from mi_crow.cli.formatting import number, print_json
from mi_crow.cli.streams import read_input
from mi_crow.cli.tables import print_line, print_table
from mi_crow.cli.text_flags import model_of
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_model
from mi_crow.language_model.hook_points.names import number_of

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_model_flags(parser)
    add_device(parser)
    parser.add_argument(
        "--profile",
        metavar="TEXT",
        help="what each block does on TEXT instead: norms of the stream and of what attention and "
        "the MLP add, their cosine to the stream, entropy of the logit lens; `-` reads stdin",
    )


def run(options: Namespace) -> int:
    spec = model_of(options)
    check_model(spec)
    from mi_crow.language_model import LanguageModel

    if options.profile is not None:
        text = clean_text(read_input()) if options.profile == "-" else options.profile
        if not text.strip():
            raise UserError("the text is empty", hint="give one in quotes, or `-` to read stdin")
        _profile(LanguageModel.from_spec(spec), text, options)
        return 0
    rows = LanguageModel.from_spec(spec).layers.survey()
    if options.json:
        print_json(rows)
        return 0
    print_table(
        ["module", "short name", ">shape"],
        [[row["name"], row["point"], _shape(row["shape"])] for row in rows if "reason" not in row],
    )
    for sentence in _missing(rows):
        print_line(sentence)
    return 0


def _profile(lm: "LanguageModel", text: str, options: Namespace) -> None:
    from mi_crow.mechanistic.attribution.depth import depth_profile

    found = depth_profile(lm, text)
    if options.json:
        print_json(found)
        return
    figures = {
        "norm": "norm",
        "attention adds": "attention",
        "cosine": "attention_cosine",
        "MLP adds": "mlp",
        "its cosine": "mlp_cosine",
        "entropy": "entropy",
    }
    print_table(
        [">block", *(f">{title}" for title in figures)],
        [
            [str(row["block"]), *(number(row[name], 3) for name in figures.values())]
            for row in found["blocks"]
        ],
    )
    for sentence in found["missing"]:
        print_line(f"not available: {sentence}")


def _missing(rows: list[dict[str, Any]]) -> list[str]:
    """The missing hook points, one line for all blocks with the same reason."""
    blocks: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if "reason" in row:
            number = number_of(row["point"]) or 0
            kind = row["point"].replace(f".{number}", "", 1)
            reason = row["reason"].replace(f".{number}'", ".N'")
            blocks.setdefault((kind, reason), []).append(number)
    kinds: dict[tuple[str, str], list[str]] = {}
    for (kind, reason), numbers in blocks.items():
        kinds.setdefault((_ranges(numbers), reason), []).append(kind)
    return [
        f"not available in {where}: {', '.join(names)} ({reason})"
        for (where, reason), names in kinds.items()
    ]


def _ranges(numbers: list[int]) -> str:
    """`block 3`, `blocks 0-2, 5`."""
    parts: list[list[int]] = []
    for block in numbers:
        if parts and block == parts[-1][-1] + 1:
            parts[-1].append(block)
        else:
            parts.append([block])
    text = ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
    return f"block{'s' if len(numbers) > 1 else ''} {text}"


def _shape(shape: Any) -> str:
    if isinstance(shape, list | tuple):
        return " x ".join(str(size) for size in shape)
    return "" if shape is None else str(shape)
