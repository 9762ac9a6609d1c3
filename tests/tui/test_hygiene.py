"""What the app must never import, and what it must not import before its first picture."""

import json
import subprocess
import sys
from pathlib import Path

NEVER = ("torch", "transformers", "datasets", "safetensors")
NOT_AT_FIRST = (*NEVER, "duckdb", "polars", "numpy", "pyarrow")

DRIVE = """
import asyncio, json, sys
from mi_crow.store.workspace import Workspace
from tui.app import MiCrowApp

async def drive():
    app = MiCrowApp(Workspace.open(sys.argv[1]))
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("2", "3", "4", "5", "6", "1", "question_mark", "escape", "n", "escape",
                    "t", "escape", "x", "escape", "e", "escape", "ctrl+p", "escape", "j", "j", "j"):
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()

asyncio.run(drive())
print(json.dumps(sorted(sys.modules)))
"""


def modules(code: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_app_and_its_first_screen_import_nothing_heavy():
    code = (
        "import json, sys, tui.app, tui.screens.runs.screen, tui.screens.features.screen; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not modules(code) & set(NOT_AT_FIRST)


def test_driving_every_screen_loads_no_torch(app_workspace):
    assert not modules(DRIVE, str(app_workspace.root)) & set(NEVER)
