"""The `mi-crow` command: a thin face over the library and the jobs, one file a command group."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and gives the process's exit code."""
    from mi_crow.cli.entry import run_command_line

    return run_command_line(argv)
