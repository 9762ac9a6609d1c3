"""`mi-crow steer scores`: how strongly each feature steers, as the column `output`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.bounds import FACTOR
from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_sae,
    bounded_size,
    device_of,
    number_within,
    open_workspace,
    pick_sae,
)
from mi_crow.cli.formatting import count, duration, number
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import Column, print_facts, print_line, print_table
from mi_crow.jobs.spec import config_as_json
from mi_crow.mechanistic.steering.measure.config import ScoresConfig


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument(
        "--strength",
        type=number_within(FACTOR),
        default=0.5,
        help="how far each feature is amplified, in norms of the token (default: 0.5)",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="a neutral prompt; repeatable (default: the two commonest openings of the texts)",
    )
    parser.add_argument(
        "--batch-size", type=bounded_size, default=64, help="features at once (default: 64)"
    )
    add_device(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    config = ScoresConfig(
        sae_id=pick_sae(workspace, options.sae),
        strength=options.strength,
        prompts=tuple(options.prompt),
        batch_size=options.batch_size,
        device=device_of(options),
    )
    return run_job(workspace, "steer-scores", config_as_json(config), options, show_result)


def show_result(result: dict[str, Any]) -> None:
    print_table(
        [Column("feature", right=True), Column("output", right=True)],
        [[str(row["feature"]), number(row["output"], 3)] for row in result["top"]],
    )
    print_facts(
        {
            "scored": f"{count(result['scored'])} of {count(result['features'])} features",
            "median": number(result["median"], 3),
            "prompts": ", ".join(repr(prompt) for prompt in result["prompts"]),
            "time": duration(result["seconds"]),
        }
    )
    print_line("mi-crow features --columns feature,output --sort output lists them")
