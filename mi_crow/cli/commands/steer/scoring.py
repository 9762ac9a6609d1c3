"""`mi-crow steer scores`: how strongly each feature steers, as the column `output`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.bounds import FACTOR
from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_sae,
    add_setting,
    bounded_size,
    device_of,
    number_within,
    open_workspace,
    pick_sae,
)
from mi_crow.cli.formatting import count, duration, number
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts, print_table
from mi_crow.mechanistic.steering.measure.config import ScoresConfig
from mi_crow.same_fields import same_fields


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    add_setting(
        parser,
        "--strength",
        0.5,
        "how far each feature is amplified, in norms of the token",
        type=number_within(FACTOR),
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="a neutral prompt; repeatable (default: the two commonest openings of the texts)",
    )
    add_setting(parser, "--batch-size", 64, "features at once", type=bounded_size)
    add_device(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    config = same_fields(
        ScoresConfig,
        options,
        sae_id=pick_sae(workspace, options.sae),
        prompts=tuple(options.prompt),
        device=device_of(options),
    )
    return run_job(workspace, "steer-scores", config, options, show_result)


def show_result(result: dict[str, Any]) -> None:
    print_table(
        [">feature", ">output"],
        [[str(row["feature"]), number(row["output"], 3)] for row in result["top"]],
    )
    print_facts(
        {
            "scored": f"{count(result['scored'])} of {count(result['features'])} features",
            "median": number(result["median"], 3),
            "prompts": ", ".join(repr(prompt) for prompt in result["prompts"]),
            "time": duration(result["seconds"]),
            "next": f"mi-crow features --sae {result['sae_id']} "
            "--columns feature,output --sort output",
        }
    )
