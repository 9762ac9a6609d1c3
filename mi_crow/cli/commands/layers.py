"""`mi-crow layers`: a model's hook points."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import add_device, add_model_flags
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import Column, print_line, print_table
from mi_crow.cli.text_flags import model_of
from mi_crow.jobs.checks import check_model
from mi_crow.language_model.hook_points.names import number_of


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_model_flags(parser)
    add_device(parser)


def run(options: Namespace) -> int:
    spec = model_of(options)
    check_model(spec)
    from mi_crow.language_model import LanguageModel

    rows = LanguageModel.from_spec(spec).layers.survey()
    if options.json:
        print_json(rows)
        return 0
    print_table(
        [Column("module"), Column("short name"), Column("shape", right=True)],
        [[row["name"], row["point"], _shape(row["shape"])] for row in rows if "reason" not in row],
    )
    for sentence in _missing(rows):
        print_line(sentence)
    return 0


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
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    text = ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
    return f"block{'s' if len(numbers) > 1 else ''} {text}"


def _shape(shape: Any) -> str:
    if isinstance(shape, list | tuple):
        return " x ".join(str(size) for size in shape)
    return "" if shape is None else str(shape)
