"""What the app must never import, and what it must not import before its first picture."""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from textual.message_pump import _MessagePumpMeta

import tui
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from tests.helpers.index_fixture import copy_index

# Each would take seconds, or 15 to 70 MB of a process that stays open all day.
NEVER = ("torch", "transformers", "datasets", "safetensors", "pyarrow", "polars", "duckdb")
NOT_AT_FIRST = (
    *NEVER,
    *("_duckdb", "numpy", "sqlite3", "importlib.metadata", "secrets", "tomllib"),
    # What a row of Runs shows, what opens over a screen, what deletes, what answers other programs.
    *("tui.screens.runs.detail", "tui.screens.runs.history", "tui.widgets.plot"),
    *("tui.widgets.frame.popup", "tui.screens.features.comparison", "mi_crow.jobs.removing"),
    *("tui.remote.server", "mi_crow.remote.wire", "mi_crow.jobs.spec"),
)

DRIVE = """
import asyncio, json, sys
from mi_crow.store.workspace import Workspace
from tui.app import MiCrowApp
from tui.screens.runs.charts import RunReading, SaeReading

async def drive():
    read = set()
    app = MiCrowApp(Workspace.open(sys.argv[1]))
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("2", "enter", "b", "o", "m", "escape", "3", "4", "5", "6", "1",
                    "question_mark", "escape", "n", "escape", "t", "escape", "x", "escape",
                    "e", "escape", "ctrl+p", "escape", *"jjjjj"):
            await pilot.press(key)
            for _ in range(3):
                await app.workers.wait_for_complete()
                await pilot.pause()
            reading = getattr(app.screen, "_reading", None)
            read |= {"run"} if isinstance(reading, RunReading) and reading.glance else set()
            read |= {"SAE"} if isinstance(reading, SaeReading) and reading.curves else set()
        read |= {"index"} if app.context.features is not None else set()
    return sorted(read)

read = asyncio.run(drive())
print(json.dumps({"read": read, "modules": sorted(sys.modules)}))
"""


def printed(code: str, *arguments: str) -> Any:
    """What a fresh interpreter prints in its last line, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_app_and_its_first_screen_import_nothing_heavy():
    code = (
        "import json, sys, tui.app, tui.screens.runs.screen, tui.screens.features.screen; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not set(printed(code)) & set(NOT_AT_FIRST)


def test_driving_every_screen_with_a_run_an_sae_and_an_index_loads_nothing_heavy(app_workspace):
    copy_index(app_workspace, "demo-topk", n_features=160, n_documents=24)
    table = MetricsTable([{"step": step, "fvu": 1 / step} for step in range(1, 9)])
    table.write(app_workspace.saes_dir / "demo-topk" / "metrics.parquet")
    told = printed(DRIVE, str(app_workspace.root))
    assert told["read"] == ["SAE", "index", "run"]
    assert not set(told["modules"]) & set(NEVER)


def test_decorated_handlers_stand_in_classes_of_textual():
    """In any other class, as a plain mixin is, `@on` does nothing."""
    ignored = []
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        for one in vars(import_module(module.name)).values():
            if isinstance(one, type) and one.__module__ == module.name:
                decorated = [
                    name for name, what in vars(one).items() if hasattr(what, "_textual_on")
                ]
                if decorated and not isinstance(one, _MessagePumpMeta):
                    ignored.append((one, decorated))
    assert not ignored
