"""Files of the workspace that hold valid JSON of the wrong type end no screen; each says why."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from mi_crow.jobs.events import append_event
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, settle

pytestmark = pytest.mark.slow

RunApp = Callable[..., AbstractAsyncContextManager[Any]]
WRONG: tuple[Any, ...] = ("x", [1], {"a": {}}, True, 1e300, -7, None)


def rewritten(path: Path, key: str, wrong: Any) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {key: wrong}))
    os.utime(path, None)


def spoil(workspace: Workspace, wrong: Any) -> None:
    """Every file of the workspace says `wrong` for something that a screen shows."""
    for folder in workspace.jobs_dir.iterdir():
        for number, key in enumerate(("done", "metrics", "eta_s", "error", "result", "t")):
            append_event(folder, ("progress", "failed", "finished")[number % 3], **{key: wrong})
        status = {"status": "running", "started": wrong, "ended": wrong, "waiting_for": wrong}
        (folder / "status.json").write_text(json.dumps(status))
    saes = sorted(workspace.saes_dir.iterdir())
    evaluation = {"fvu": wrong, "l0": wrong, "probes": {"latents": wrong, "raw": {"auroc": wrong}}}
    (saes[0] / "evaluation.json").write_text(json.dumps(evaluation))
    rewritten(saes[1] / "cfg.json", "d_sae", wrong)
    runs = sorted(workspace.activations_dir.iterdir())
    for key in ("created", "layers", "parts", "dataset"):
        rewritten(runs[0] / "manifest.json", key, wrong)
    jobs = sorted(workspace.jobs_dir.iterdir())
    rewritten(jobs[0] / "spec.json", "created", wrong)
    rewritten(jobs[1] / "spec.json", "params", wrong)


async def test_no_wrong_value_ends_the_app(run_app: RunApp, app_workspace: Workspace):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        for wrong in WRONG:
            spoil(app_workspace, wrong)
            pilot.app.look_now()
            await settle(pilot)
            await press(pilot, "g", *("j" * 10), "G")
            assert pilot.app.is_running
            assert "smol-l15" in screen_text(pilot)  # what is whole is still there


async def test_an_evaluation_of_the_wrong_type_says_so(run_app: RunApp, app_workspace: Workspace):
    path = app_workspace.saes_dir / "demo-topk" / "evaluation.json"
    path.write_text('{"fvu": "low"}')
    async with run_app(app_workspace, size=(200, 60), sae_id=None) as pilot:
        await press(pilot, "j", "j", "j")
        text = screen_text(pilot)
        assert "evaluation.json: fvu must be a number, not 'low'" in text
        assert "e evaluates it on held-out text" in text
