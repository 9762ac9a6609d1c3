"""`mi-crow layers`: where a model can be read and changed."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import add_device, add_model_flags, device_of
from mi_crow.cli.tables import Column, print_table
from mi_crow.cli.text import print_json
from mi_crow.jobs.checks import check_model
from mi_crow.language_model.config import ModelSpec


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_model_flags(parser)
    add_device(parser)


def run(options: Namespace) -> int:
    spec = ModelSpec(
        options.model,
        gguf_file=options.gguf_file,
        revision=options.revision,
        dtype=options.model_dtype,
        device=device_of(options),
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
    )
    check_model(spec)
    from mi_crow.language_model import LanguageModel

    rows = LanguageModel.from_spec(spec).layers.describe()
    if options.json:
        print_json(rows)
    else:
        print_table(
            [Column("module"), Column("short name"), Column("shape", right=True)],
            [[row["name"], row["point"] or "", _shape(row["shape"])] for row in rows],
        )
    return 0


def _shape(shape: Any) -> str:
    if isinstance(shape, list | tuple):
        return " x ".join(str(size) for size in shape)
    return "" if shape is None else str(shape)
