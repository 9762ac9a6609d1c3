"""`mi-crow doctor`: checks of this machine and the workspace."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from mi_crow.cli.arguments import add_switch, open_workspace, workspace_path
from mi_crow.cli.doctor_checks import Finding, clean, examine
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import console
from mi_crow.errors import CorruptDataError
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible

_MARKS = {"ok": "ok  ", "note": "note", "warning": "WARN"}


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.epilog = "Always exits with 0; a warning says what to do about it."
    parser.add_argument("--deep", metavar="ID", help="verify every byte of a run or an SAE")
    add_switch(parser, "--clean", "remove temporary files left by killed processes")


def run(options: Namespace) -> int:
    if options.deep is not None:
        from mi_crow.cli.doctor_deep import examine_deeply

        findings = examine_deeply(open_workspace(options), options.deep)
    elif options.clean:
        findings = clean(open_workspace(options).root)
    else:
        findings = examine(Workspace.locate(_path(options)).absolute())
    if options.json:
        warnings = sum(finding.level == "warning" for finding in findings)
        print_json({"findings": [asdict(f) for f in findings], "warnings": warnings})
    else:
        _show(findings)
    return 0


def _path(options: Namespace) -> str | None:
    """The named workspace; without the config file where that is damaged, which is a finding."""
    try:
        return workspace_path(options)
    except CorruptDataError:
        return None


def _show(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        said = Text(visible(finding.found))
        if finding.advice:
            said.append(f"\n{visible(finding.advice)}", style="bold")
        table.add_row(Text(_MARKS[finding.level]), Text(finding.topic), said)
    console().print(table)
