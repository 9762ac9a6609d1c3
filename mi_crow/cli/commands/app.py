"""`mi-crow` without a command: the terminal app. Nothing else imports it."""

import sys
from argparse import Namespace

from mi_crow.cli.arguments import plan_workspace
from mi_crow.errors import UserError
from mi_crow.store.workspace import Workspace


def run(options: Namespace) -> int:
    workspace = plan_workspace(options)
    if options.json:
        raise UserError("--json needs a command", hint="mi-crow --help lists them")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the app needs a terminal", hint="give a command: mi-crow --help")
    return open_app(workspace, fresh=options.fresh)


def open_app(workspace: Workspace, sae_id: str | None = None, *, fresh: bool = False) -> int:
    """Opens the app on a workspace, which is made if needed, and gives its exit code. Raises the
    error that ended it."""
    from tui.app import run as run_app

    workspace.ensure()
    return run_app(workspace, sae_id, fresh=fresh)
