"""The capture job: from its specification to a run on the disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mi_crow.datasets import load_texts
from mi_crow.language_model.capture.run import Capture, CaptureResult
from mi_crow.language_model.chat import chat_renderer
from mi_crow.language_model.config import CaptureConfig, ModelSpec
from mi_crow.language_model.language_model import LanguageModel
from mi_crow.language_model.placement.expected import memory_sentence
from mi_crow.language_model.placement.packages import check_processes
from mi_crow.language_model.token_ids import ids_decoder
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import MANIFEST_NAME, RunManifest
from mi_crow.store.workspace import Workspace


def capture_run(
    workspace: Workspace,
    config: CaptureConfig,
    progress: Progress | None = None,
    run_dir: Path | None = None,
    ranks: Ranks = ALONE,
) -> CaptureResult:
    """The capture job: loads model and texts, then captures into `run_dir` (else a new folder).

    Model, layers, dataset and room on the disk are checked before anything is written. A `run_dir`
    with a part of the same capture is continued. Several `ranks` take the shards in turn, or split
    the model and run all of them together (`tensor_parallel`).
    Raises UserError or NotFoundError in one sentence.
    """
    config = in_recorded_batches(config, run_dir)
    progress, spec = progress or NullProgress(), in_recorded_dtype(config.model, run_dir)
    if expected := memory_sentence(spec):
        progress.log(expected)
    if config.tensor_parallel:
        check_processes(spec, ranks.world)
    lm = LanguageModel.from_spec(spec, split_over=ranks.world if config.tensor_parallel else 1)
    texts = load_texts(
        config.dataset, config.model.offline, chat_renderer(lm.tokenizer), ids_decoder(lm.tokenizer)
    )
    return Capture(lm, texts, config).run(workspace, progress, run_dir, ranks)


def in_recorded_dtype(spec: ModelSpec, run_dir: Path | None) -> ModelSpec:
    """The model in the dtype that the run was started in, perhaps on another machine."""
    recorded = _recorded(run_dir, "compute_dtype")
    if spec.dtype != "auto" or recorded is None:
        return spec
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    return replace(spec, dtype=names.get(str(recorded), "auto"))


def in_recorded_batches(config: CaptureConfig, run_dir: Path | None) -> CaptureConfig:
    """The capture in batches as large as those that the run was planned in, unless it says how
    large."""
    recorded = _recorded(run_dir, "batch_size")
    if config.batch_size is not None or not isinstance(recorded, int):
        return config
    return replace(config, batch_size=recorded)


def _recorded(run_dir: Path | None, setting: str) -> Any:
    """A setting of the run that is to be continued; None without one."""
    if run_dir is None or not (run_dir / MANIFEST_NAME).exists():
        return None
    return RunManifest.load(run_dir).settings.get(setting)
