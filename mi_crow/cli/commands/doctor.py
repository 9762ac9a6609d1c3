"""`mi-crow doctor`: checks of this machine and the workspace."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from mi_crow.cli.arguments import add_switch, open_workspace, workspace_path
from mi_crow.cli.doctor_checks import CheckResult, clean, examine
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import console
from mi_crow.errors import CorruptDataError
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible

_MARKS = {"ok": "ok  ", "note": "note", "warning": "WARN"}


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.epilog = "Always exits with 0; a warning says what to do about it."
    parser.add_argument("--deep", metavar="ID", help="verify every byte of a run or an SAE")
    add_switch(parser, "--clean", "remove temporary files and downloads left by killed processes")


def run(options: Namespace) -> int:
    if options.deep is not None:
        from mi_crow.cli.doctor_deep import examine_deeply

        results = examine_deeply(open_workspace(options), options.deep)
    elif options.clean:
        results = clean(open_workspace(options).root)
    else:
        results = examine(Workspace.locate(_path(options)).absolute())
    if options.json:
        warnings = sum(result.level == "warning" for result in results)
        print_json({"checks": [asdict(f) for f in results], "warnings": warnings})
    else:
        _show(results)
    return 0


def _path(options: Namespace) -> str | None:
    """The named workspace; without the config file where that is damaged, which a check reports."""
    try:
        return workspace_path(options)
    except CorruptDataError:
        return None


def _show(results: list[CheckResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for result in results:
        said = Text(visible(result.found))
        if result.advice:
            said.append(f"\n{visible(result.advice)}", style="bold")
        table.add_row(Text(_MARKS[result.level]), Text(result.topic), said)
    console().print(table)
