"""A workspace with something of everything, at a fixed time, and the app running on it."""

import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from textual.pilot import Pilot

from mi_crow.jobs.gauges import Gauges
from mi_crow.language_model.outline import Outline, outline_of
from mi_crow.store.runs.manifest import LayerSpec, PartSpec
from mi_crow.store.workspace import Workspace
from tests.helpers import made_files
from tests.helpers.index_fixture import make_index
from tests.helpers.jobs_fixture import FakeJobs
from tests.tui.driving import press, settle, without_sleeping
from tests.tui.stand_ins import SAE, ScriptedSession, give_index, session_of
from tui import messages
from tui.app import MiCrowApp
from tui.widgets.area import Area

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC

OpenWithSession = Callable[..., AbstractAsyncContextManager[tuple[Pilot, ScriptedSession]]]
RunApp = Callable[..., AbstractAsyncContextManager[Pilot]]

EVALUATION = {
    "fvu": 0.1182,
    "fvu_all": 0.1403,
    "explained_variance": 0.8818,
    "outlier_share": 0.003,
    "l0": 16.0,
    "dead_share": 0.031,
    "dense_share": 0.01,
    "ce_original": 3.121,
    "ce_reconstructed": 3.152,
    "ce_zero": 8.11,
    "loss_recovered": 0.9938,
    "kl": 0.0312,
    "cosine": 0.941,
    "ce_mean": 9.2,
    "loss_recovered_mean": 0.9949,
    "probes": {
        "labels": 4,
        "documents": 80,
        "latents": {"1": 0.981, "2": 0.99, "5": 0.997},
        "residual": {"1": 0.884, "2": 0.931, "5": 0.975},
        "latents_accuracy": {"1": 0.97, "2": 0.98, "5": 0.99},
        "residual_accuracy": {"1": 0.81, "2": 0.87, "5": 0.93},
        "raw": {"auroc": 0.999, "accuracy": 0.99},
    },
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clock times on the screen must not depend on the machine's time zone."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True, scope="session")
def _no_sleeping() -> Iterator[None]:
    """A pilot goes on as soon as the app has nothing to do."""
    with pytest.MonkeyPatch.context() as patch:
        without_sleeping(patch)
        yield


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a cursor follows soon: `settle` waits for it after each key."""
    monkeypatch.setattr("tui.threads.REST_S", 0.01)


@pytest.fixture(autouse=True)
def _lasting_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice stays however long a busy machine takes until a test looks for it."""
    monkeypatch.setattr("textual.app.App.NOTIFICATION_TIMEOUT", 3600.0)


@pytest.fixture(autouse=True)
def _calm_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine does meanwhile must not show in a picture."""
    memory, disk = (3_100_000_000, 8_200_000_000), (14_000_000_000, 62_000_000_000)
    calm = Gauges(2, 0.4, *memory, (), *disk)
    monkeypatch.setattr("mi_crow.jobs.gauges.read_gauges", lambda folder=None: calm)
    monkeypatch.setattr("mi_crow.jobs.device_lock.look_at_queues", list)
    monkeypatch.setattr("tui.screens.runs.welcome.Welcome._free", lambda _: 52_000_000_000)
    monkeypatch.setattr("tui.screens.runs.welcome.Welcome._place", lambda _: "/data/mi-crow")
    monkeypatch.setattr("tui.screens.control.known.cached_models", list)
    monkeypatch.setattr("tui.screens.control.known.outline_of", _outline_of_the_sample)


def _outline_of_the_sample(model: str, revision: str | None) -> Outline | None:
    """Other models may or may not be on this machine."""
    return outline_of(model, revision) if model == "sample" else None


@pytest.fixture
def empty_workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def fake_jobs(empty_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJobs]:
    jobs = FakeJobs(empty_workspace)
    yield jobs
    jobs.close()


@pytest.fixture
def app_workspace(
    empty_workspace: Workspace, fake_jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """Two runs, two SAEs (one evaluated), and a job in every state; all times are fixed."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW)
        add_run(empty_workspace, "demo", "sample", NOW - 7200)
        add_run(empty_workspace, "smol-l15", "HuggingFaceTB/SmolLM2-135M-Instruct", NOW - 3600)
        add_sae(empty_workspace, "demo-topk", "sample", "demo", NOW - 4500, EVALUATION)
        add_sae(
            empty_workspace,
            "smol-sae",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "smol-l15",
            NOW - 1000,
        )
        _add_jobs(fake_jobs)
    return empty_workspace


def add_run(workspace: Workspace, run_id: str, model_id: str, created: float) -> None:
    folder = made_files.add_run(
        workspace,
        run_id,
        layers=[LayerSpec("model.layers.2", "resid_post.2", 128)],
        model_id=model_id,
        tokenizer_hash="0" * 16,
        dataset={"source": "sample", "split": "train"},
        settings={"context_length": 128},
        created=created,
        seconds=15.2,
        parts=[PartSpec(0, 0, 512, 40_231), PartSpec(0, 1, 512, 40_100)],
    )
    for part in range(2):
        add_documents(folder, part)
    pad_to(folder, 20_600_000)


def add_documents(run_dir: Path, part: int) -> None:
    """The documents of one part; of its activations there are none."""
    tokens = run_dir / "tokens"
    tokens.mkdir(exist_ok=True)
    (tokens / f"part-000-{part:05d}.parquet").write_bytes(_documents())


@cache
def _documents() -> bytes:
    """Short texts of four labels, one in ten held out, as a Parquet file."""
    texts = (
        ("harbour", "Two ships came in before dawn, and the crew unloaded salt until the bell."),
        ("weather", "Rain fell on the hills all morning; by noon the wind had turned to the east."),
        ("letters", "Dear Anna, the house is quiet now. I keep the stove lit and read your lines."),
        ("recipes", "Stir the flour into the milk, add two eggs, and let it rest for an hour."),
    )
    rows = [
        {
            "text": f"{texts[number % 4][1]} This is the text with the number {number}.",
            "label": texts[number % 4][0],
            "split": "heldout" if number % 10 == 3 else "train",
            "token_ids": list(range(70 + number % 9)),
        }
        for number in range(512)
    ]
    file = BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def add_sae(
    workspace: Workspace,
    sae_id: str,
    model_id: str,
    run_id: str,
    created: float,
    evaluation: dict[str, Any] | None = None,
) -> None:
    folder = workspace.make_sae_dir(sae_id, sae_id)
    own = {"layer": "model.layers.2", "run_id": run_id}
    metadata = {"model_name": model_id, "hook_name": "model.layers.2", "mi_crow": own}
    cfg = {"architecture": "topk", "d_in": 128, "d_sae": 2048, "k": 16, "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    os.utime(folder / "cfg.json", (created, created))
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    pad_to(folder, 2_110_000)


def pad_to(folder, n_bytes: int) -> None:
    """Makes a folder as large as real ones look, without using the disk."""
    with (folder / "padding").open("wb") as file:
        file.truncate(n_bytes)


def _add_jobs(jobs: FakeJobs) -> None:
    jobs.add(
        "finished",
        "capture",
        name="demo",
        created=NOW - 5000,
        result={"run_id": "demo", "tokens": 80_331, "documents": 1024, "seconds": 15.2},
    )
    jobs.add(
        "failed",
        "train",
        name="wide",
        created=NOW - 4000,
        log="loading the run\nnot enough memory [bold]really[/bold]\n",
    )
    jobs.add("cancelled", "index", name="old", created=NOW - 3000)
    jobs.add("lost", "evaluate", name="demo-topk", created=NOW - 2000)
    running = jobs.add(
        "running",
        "train",
        name="smol-sae",
        done=0,
        total=600,
        metrics={"loss": 1.0, "fvu": 0.92, "l0": 16.0, "dead_share": 0.0, "tokens_s": 20_000.0},
        created=NOW - 1000,
        params={
            "run_id": "smol-l15",
            "layer": "resid_post.15",
            "k": 32,
            "training": {"steps": 600},
        },
        log="reading 80,331 tokens\nstep 246 of 600\n",
    )
    for step in range(6, 252, 6):
        metrics = {
            "loss": 0.1 + 0.9 * math.exp(-step / 80),
            "fvu": 0.12 + 0.8 * math.exp(-step / 60),
            "l0": 16.0,
            "dead_share": 0.04,
            "tokens_s": 21_400.0,
        }
        jobs.progress(running, step, 600, "step", metrics)
    jobs.add("queued", "index", name="smol-sae", created=NOW - 900)


@pytest.fixture
def run_app() -> RunApp:
    """`async with run_app(workspace, size=(80, 24), sae_id=None) as pilot`, settled."""

    @asynccontextmanager
    async def run(
        workspace: Workspace, size: tuple[int, int] = (80, 24), sae_id: str | None = None
    ) -> AsyncIterator[Pilot]:
        app = MiCrowApp(workspace, sae_id)
        async with app.run_test(size=size, notifications=True) as pilot:
            await settle(pilot)
            yield pilot

    return run


@pytest.fixture
def open_on(run_app: RunApp, app_workspace: Workspace) -> RunApp:
    """`async with open_on("2", "g", size=) as pilot`: the app after these keys, with an index and a
    session that is a pretended one. `before(app)` is called first."""

    @asynccontextmanager
    async def run(
        *keys: str,
        size: tuple[int, int] = (80, 24),
        before: Callable[[MiCrowApp], None] | None = None,
    ) -> AsyncIterator[Pilot]:
        async with run_app(app_workspace, size=size, sae_id=SAE) as pilot:
            assert isinstance(pilot.app, MiCrowApp)
            if before is not None:
                before(pilot.app)
            give_index(pilot.app)
            pilot.app.look_now()  # the index is noticed now, not at some moment of the test
            await settle(pilot)
            await press(pilot, *keys)
            yield pilot

    return run


@pytest.fixture
def open_features(open_on: RunApp) -> RunApp:
    return partial(open_on, "2")


@pytest.fixture
def open_inspect(open_on: RunApp) -> OpenWithSession:
    @asynccontextmanager
    async def run(size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[Pilot, ScriptedSession]]:
        async with open_on("3", size=size) as pilot:
            yield pilot, session_of(pilot)

    return run


@pytest.fixture
def open_steer(open_on: RunApp) -> OpenWithSession:
    """Steer with some features in its stack and a prompt."""

    @asynccontextmanager
    async def run(
        *features: int, size: tuple[int, int] = (80, 24)
    ) -> AsyncIterator[tuple[Pilot, ScriptedSession]]:
        async with open_on("4", size=size) as pilot:
            assert isinstance(pilot.app, MiCrowApp)
            for feature in features:
                await pilot.app.go("steer", messages.SendToSteer(feature))
                await settle(pilot)
            pilot.app.screen.query_one("#steer-prompt", Area).text = "The harbour"
            yield pilot, session_of(pilot)

    return run


@pytest.fixture
def indexed(empty_workspace: Workspace) -> Workspace:
    """A workspace with one SAE, whose index has a few topics."""
    make_index(empty_workspace, "fixture-sae")
    return empty_workspace


@pytest.fixture
def open_index(run_app: RunApp, indexed: Workspace) -> RunApp:
    """Features, on that index."""

    @asynccontextmanager
    async def run(size: tuple[int, int] = (120, 40)) -> AsyncIterator[Pilot]:
        async with run_app(indexed, size=size, sae_id="fixture-sae") as pilot:
            await press(pilot, "2")
            yield pilot

    return run


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is handed to the jobs; no process is started."""
    calls: list[dict[str, Any]] = []

    def submit(workspace, kind, params, device="auto", name=None, after=None, **how) -> str:
        calls.append({"kind": kind, "params": params, "device": device, "name": name} | how)
        return "a-job"

    monkeypatch.setattr("mi_crow.jobs.launch.submit", submit)
    return calls
