"""The kinds of jobs: the config each takes, what it makes, and the call that does the work.

The work is imported inside the call, so that importing this table is cheap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from mi_crow.arithmetic import settle_arithmetic
from mi_crow.errors import UserError, nearest
from mi_crow.jobs.checks import (
    check_capture,
    check_evaluate,
    check_explain,
    check_export,
    check_import,
    check_index,
    check_train,
    check_vector,
    split_capture,
    split_train,
)
from mi_crow.jobs.demo.run import stage_in
from mi_crow.jobs.demo.standing import check_demo
from mi_crow.language_model.config import CaptureConfig
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.explanations.config import ExplanationsConfig
from mi_crow.mechanistic.features.config import INDEXING, NAMING, IndexConfig
from mi_crow.mechanistic.sae.config import KL, ON_HELDOUT, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EVALUATING, EvaluateConfig
from mi_crow.mechanistic.sae.formats.config import ExportConfig, ImportConfig
from mi_crow.mechanistic.steering.measure.config import AutoConfig, ScoresConfig, SweepConfig
from mi_crow.mechanistic.vectors.config import MakeConfig
from mi_crow.progress import LOADING, OF_WEIGHTS, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.settings import validate_device
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class DemoConfig:
    """The demo only lets the user choose its device and seed."""

    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """The arguments of a kind's work function."""

    workspace: Workspace
    config: Any
    progress: Progress
    output_dir: Path | None  # the run's or SAE's folder, for the kinds that make one
    ranks: Ranks = ALONE  # the processes that share the work, for kinds that can be shared


@dataclass(frozen=True)
class Kind:
    """One kind of job."""

    config: type
    work: Callable[[Work], dict[str, Any]]
    makes: str | None = None  # run | SAE: whose folder the runner reserves and a resume reuses
    check: Callable[[Workspace, Any], None] | None = None  # raises before anything is written
    ranked: bool = False  # several processes can share the work
    split: Callable[[Any, int], None] | None = None  # raises where so many processes cannot
    queues: Callable[[Any], bool] = lambda _: True  # whether this config needs a device of its own
    # What it does from a line of its log on, in words; "" for its main work, whose bar says enough,
    # None where nothing begins with the line.
    stage_in: Callable[[str], str | None] = lambda _: None


def _stages(begin: Mapping[str, str]) -> Callable[[str], str | None]:
    """What a job does from a line of its log on, by how the line begins."""

    def stage_in(message: str) -> str | None:
        if OF_WEIGHTS in message:  # they are looked at, and then loaded
            return LOADING
        return next((words for start, words in begin.items() if message.startswith(start)), None)

    return stage_in


def _calling(
    module: str, name: str, *, exact: bool = False, ranked: bool = False
) -> Callable[[Work], dict[str, Any]]:
    """Work that one function does, given the workspace, the config and the progress; with `ranked`
    also the processes that share it. `exact`: also with the smallest numbers, see
    `settle_arithmetic`."""

    def work(given: Work) -> dict[str, Any]:
        if not exact:
            settle_arithmetic()
        call = getattr(import_module(f"mi_crow.mechanistic.{module}"), name)
        more = {"ranks": given.ranks} if ranked else {}
        made = call(given.workspace, given.config, given.progress, **more)
        return made if isinstance(made, dict) else made.as_json()

    return work


def _checked_steering(name: str) -> Callable[[Workspace, Any], None]:
    """A check among those of measured steering, which cost a moment to import."""

    def check(workspace: Workspace, config: Any) -> None:
        from mi_crow.mechanistic.steering.measure import checks

        validate_device(config.device)
        getattr(checks, name)(workspace, config)

    return check


def _capture(work: Work) -> dict[str, Any]:
    settle_arithmetic()
    from mi_crow.language_model.capture.job import capture_run

    result = capture_run(
        work.workspace, work.config, work.progress, work.output_dir, ranks=work.ranks
    )
    return result.as_json()


def _train(work: Work) -> dict[str, Any]:
    settle_arithmetic()
    from mi_crow.jobs.metrics_rescue import repair_metrics
    from mi_crow.mechanistic.sae.train.run import train_run

    if work.output_dir is not None and work.ranks.rank == 0:
        repair_metrics(work.workspace, work.output_dir, work.progress)
    given = work.workspace, work.config, work.progress, work.output_dir, work.ranks
    if work.config.finetune == KL:
        from mi_crow.mechanistic.sae.finetune.job import finetune_run

        return finetune_run(*given).as_json()
    return train_run(*given).as_json()


def _index(work: Work) -> dict[str, Any]:
    settle_arithmetic()
    from mi_crow.mechanistic.features.index.build import build_index

    made = build_index(work.workspace, work.config, work.progress, ranks=work.ranks).as_json()
    if not work.config.names:
        return made
    work.progress.log(NAMING)
    return made | {"names": _names(work.workspace, work.config, work.progress, work.ranks)}


def _names(
    workspace: Workspace, index: IndexConfig, progress: Progress, ranks: Ranks
) -> dict[str, Any]:
    """Proposes the names that belong to an index."""
    from mi_crow.mechanistic.explain.job import explain_features

    config = ExplainConfig(index.sae_id, index.seed)
    return explain_features(workspace, config, progress, ranks).as_json()


def _check_explanations(workspace: Workspace, config: ExplanationsConfig) -> None:
    from mi_crow.mechanistic.explain.explanations.job import check_explanations

    validate_device(config.device)
    check_explain(workspace, ExplainConfig(config.sae_id))
    check_explanations(workspace, config)


def _import(work: Work) -> dict[str, Any]:
    from mi_crow.mechanistic.concepts.exchange.published_names import import_with_names

    return import_with_names(work.workspace, work.config, work.progress, work.output_dir).as_json()


def _demo(work: Work) -> dict[str, Any]:
    settle_arithmetic()
    from mi_crow.jobs.demo.run import run_demo

    config: DemoConfig = work.config
    return run_demo(work.workspace, work.progress, config.device, config.seed)


KINDS: dict[str, Kind] = {
    "capture": Kind(
        CaptureConfig,
        _capture,
        makes="run",
        check=check_capture,
        ranked=True,
        split=split_capture,
        stage_in=_stages({"about ": ""}),
    ),
    "train": Kind(
        TrainConfig,
        _train,
        makes="SAE",
        check=check_train,
        ranked=True,
        split=split_train,
        stage_in=_stages(
            {
                "loading ": LOADING,
                "reading ": "reading activations",
                "training ": "",
                ON_HELDOUT: ON_HELDOUT,
            }
        ),
    ),
    "index": Kind(
        IndexConfig,
        _index,
        check=check_index,
        ranked=True,
        stage_in=_stages({one: one for one in (*INDEXING, NAMING)}),
    ),
    "explanations": Kind(
        ExplanationsConfig,
        _calling("explain.explanations.job", "explain_with", exact=True),
        check=_check_explanations,
        queues=lambda config: config.is_local,
    ),
    "explain": Kind(
        ExplainConfig,
        _calling("explain.job", "explain_features", exact=True, ranked=True),
        check=check_explain,
        ranked=True,
        queues=lambda _: False,
    ),
    "evaluate": Kind(
        EvaluateConfig,
        _calling("sae.evaluation.evaluate", "evaluate_sae", ranked=True),
        check=check_evaluate,
        ranked=True,
        stage_in=_stages({one: one for one in EVALUATING}),
    ),
    "steer-sweep": Kind(
        SweepConfig,
        _calling("steering.measure.sweep", "run_sweep"),
        check=_checked_steering("check_sweep"),
    ),
    "steer-auto": Kind(
        AutoConfig,
        _calling("steering.measure.auto", "run_auto"),
        check=_checked_steering("check_auto"),
    ),
    "steer-scores": Kind(
        ScoresConfig,
        _calling("steering.measure.output_scores", "score_outputs"),
        check=_checked_steering("check_scores"),
    ),
    "vector": Kind(MakeConfig, _calling("vectors.job", "run_make"), check=check_vector),
    "import": Kind(
        ImportConfig,
        _import,
        makes="SAE",
        check=check_import,
        queues=lambda config: config.check is not None,
    ),
    "export": Kind(
        ExportConfig,
        _calling("sae.formats.exporting", "export_from", exact=True),
        check=check_export,
        queues=lambda _: False,
    ),
    "demo": Kind(DemoConfig, _demo, check=check_demo, stage_in=stage_in),
}


def kind_of(name: str) -> Kind:
    """The kind with this name. Raises UserError naming the kinds there are."""
    if name not in KINDS:
        raise UserError(f"job kind {name!r} is not known", hint=f"there is {nearest(name, KINDS)}")
    return KINDS[name]


def device_of(config: Any) -> str:
    """The device that a config asks for; the CPU, where there is nothing to ask for."""
    if isinstance(config, CaptureConfig):
        return config.model.device
    return getattr(config, "device", "cpu")


def with_device(config: Any, device: str) -> Any:
    """The config with its device replaced, where it has one."""
    if isinstance(config, CaptureConfig):
        return replace(config, model=replace(config.model, device=device))
    if isinstance(config, ImportConfig) and config.model is not None:
        config = replace(config, model=replace(config.model, device=device))
    return replace(config, device=device) if hasattr(config, "device") else config
