"""Capturing activations: texts through the model, kept tokens to shards, part by part.

Three things overlap: texts are read and tokenized ahead, the model runs, and finished rows are put
in place and written. What a part contains depends only on dataset, model and settings, so a killed
capture resumes after its last complete part and ends with the same content.
"""

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, time
from typing import Any

from mi_crow.background import read_ahead
from mi_crow.datasets import Texts
from mi_crow.errors import CancelledError, UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.capture.estimate import LESS, check_room, estimate
from mi_crow.language_model.capture.forward import Forward
from mi_crow.language_model.capture.source import CaptureSource, Todo
from mi_crow.language_model.capture.writer import PartWriter
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.placement.batch_size import BatchSize, documents_at_once
from mi_crow.language_model.placement.tensor_parallel import check_whole
from mi_crow.language_model.published_metadata import META_NAME, published_metadata
from mi_crow.language_model.token_ids import tokenizer_check
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.atomic import remove_stale, write_json
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.runs.manifest import (
    MANIFEST_NAME,
    LayerSpec,
    RunManifest,
    remove_uncommitted,
    updating_manifest,
)
from mi_crow.store.runs.verify import damaged_files
from mi_crow.store.workspace import Workspace, folder_bytes

_PARTS_AHEAD = 1


@dataclass(frozen=True)
class CaptureResult(JsonRecord):
    """The result of a capture."""

    run_id: str
    layers: list[str]  # names of modules
    points: list[str]  # the same as short names
    tokens: int
    documents: int
    seconds: float
    bytes: int
    padding_share: float  # of the positions that went through the model
    rounding_fvu: dict[str, float]  # by layer, of storing int8; empty for other dtypes


class Capture:
    """One capture of one model over one set of texts."""

    def __init__(
        self, lm: CausalModel, texts: Texts, config: CaptureConfig, less: str = LESS
    ) -> None:
        """`less` says what would need less of a disk that is too small. Raises NotFoundError for
        an unknown layer, UserError for endless texts without limit."""
        self._less = less
        at_once = documents_at_once(config.batch_size, lm.device, config.context_length)
        config = replace(config, batch_size=at_once)
        self._lm, self._texts, self._config = lm, texts, config
        self._points = list(dict.fromkeys(lm.layers.resolve(layer) for layer in config.layers))
        names = [point.stored for point in self._points]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"input and output of {twice!r} cannot share a run", hint="capture them in two runs"
            )
        self.layers: list[LayerSpec] = [
            LayerSpec(point.stored, point.point, lm.layers.width(point)) for point in self._points
        ]
        if config.tensor_parallel:
            check_whole(lm, self._points)
        self._source = CaptureSource(lm, texts, config, self.layers)
        self._total = self._source.total

    def run(
        self,
        workspace: Workspace,
        progress: Progress,
        run_dir: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> CaptureResult:
        """Captures what is not in `run_dir` yet."""
        made = run_dir is None
        prepared: dict[str, Any] = {}
        if ranks.rank == 0:
            if checked := tokenizer_check(self._lm.tokenizer, self._texts):
                progress.log(checked)
            share = self._sharing(ranks)
            run_dir, todo = self._prepare(workspace, progress, run_dir, share.world)
            prepared = {"run": run_dir.name, "todo": asdict(todo)}
        prepared = ranks.agree(prepared)
        run_dir = run_dir or workspace.run_dir(prepared["run"])
        try:
            if not RunManifest.load(run_dir).complete:
                self._capture(run_dir, Todo.from_json(prepared["todo"]), progress, ranks)
                ranks.wait()
                if ranks.rank == 0:
                    self._close(run_dir, progress)
                ranks.wait()
        except BaseException:
            # A folder made here, in which nothing was committed, is of no use to anybody.
            if made and ranks.rank == 0 and not RunManifest.load(run_dir).n_tokens:
                workspace.delete(run_dir)
            raise
        return _result(run_dir)

    def _prepare(
        self, workspace: Workspace, progress: Progress, run_dir: Path | None, world: int
    ) -> tuple[Path, Todo]:
        """The run's folder with a manifest in it, and what is left to do."""
        fresh = self._fresh_manifest()
        if run_dir is None or not (run_dir / MANIFEST_NAME).exists():
            expected = estimate(self._lm, self._points, self.layers, self._source, self._config)
            check_room(expected, run_dir or workspace.activations_dir, self._less)
            progress.log(expected.sentence())
        if run_dir is None:
            run_dir = workspace.make_run_dir(self._config.name, Path(self._config.model.model).name)
        manifest = self._manifest(run_dir, fresh)
        for folder in (run_dir, run_dir / "tokens", *(run_dir / one.name for one in self.layers)):
            remove_stale(folder)
        if not manifest.complete:
            manifest = _drop_damaged(run_dir, manifest, progress)
            remove_uncommitted(run_dir, manifest)
        return run_dir, self._source.todo(manifest, world)

    def _sharing(self, ranks: Ranks) -> Ranks:
        """The processes that share the documents: one, where all split the model."""
        return ALONE if self._config.tensor_parallel else ranks

    def _stop_together(self, progress: Progress, ranks: Ranks) -> None:
        """Raises CancelledError when asked to stop: in all processes after the same batch, where
        they split the model."""
        if not self._config.tensor_parallel:
            raise_if_stopped(progress)
        elif ranks.agree(progress.should_stop()):
            raise CancelledError

    def _follow(self, forward: Forward, todo: Todo, progress: Progress, ranks: Ranks) -> None:
        """Computes this process's part of every batch, which the first one writes."""
        for plan in self._source.plans(todo, ALONE):
            for _ in forward.part(plan):
                self._stop_together(progress, ranks)

    def _capture(self, run_dir: Path, todo: Todo, progress: Progress, ranks: Ranks) -> None:
        """Writes those of this rank's parts that are not in the manifest yet."""
        config, manifest = self._config, RunManifest.load(run_dir)
        together, share = config.tensor_parallel, self._sharing(ranks)
        size = BatchSize(manifest.settings["batch_size_used"], progress.log, fixed=together)
        forward = Forward(self._lm, self._points, config.dtype, size)
        if together and ranks.rank > 0:
            self._follow(forward, todo, progress, ranks)
            return
        mine = [part.index for part in manifest.parts if part.rank == share.rank]
        points = {layer.name: layer.point for layer in self.layers}
        report = _ProgressReport(progress, self._total, manifest, share.world)
        plans = read_ahead(self._source.plans(todo, share), _PARTS_AHEAD, "capture-tokens")
        with (
            closing(plans),
            PartWriter(
                run_dir,
                share.rank,
                max(mine, default=-1) + 1,
                self.layers,
                config.dtype,
                points,
                progress,
            ) as writer,
        ):
            for plan in plans:
                part = writer.begin(plan)
                for copy in forward.part(plan):
                    self._stop_together(progress, ranks)
                    writer.batch_size = size.size
                    writer.put(part, copy)
                    report.batch(sum(copy.batch.counts), copy.batch.documents_started)
                writer.batch_size = size.size
                writer.end(part)
        if skipped := self._texts.skipped:
            progress.log(f"{skipped:,} records without a text were skipped")
        if cut := self._source.truncated:
            progress.log(
                f"{cut:,} documents were cut at the context; --long-documents split keeps all"
            )

    def _close(self, run_dir: Path, progress: Progress) -> None:
        """Marks the run as complete. Raises UserError for one without tokens."""
        with updating_manifest(run_dir) as manifest:
            if manifest.n_tokens:
                write_json(run_dir / META_NAME, published_metadata(manifest))
                manifest.status = "complete"
        if not manifest.n_tokens:
            raise UserError(
                f"dataset {self._texts.source!r} gave no tokens",
                hint="its texts contain only special tokens",
            )
        progress.log(f"padding was {manifest.padding_share:.1%} of what the model computed")
        for layer, fvu in manifest.rounding_fvu.items():
            progress.log(f"storing int8 costs an FVU of {fvu:.2g} at {manifest.layer(layer).point}")

    def _manifest(self, run_dir: Path, fresh: RunManifest) -> RunManifest:
        """The manifest of the capture to resume, else `fresh`, saved.

        Raises UserError when the folder has a capture of something else.
        """
        fresh.run_id = run_dir.name
        if not (run_dir / MANIFEST_NAME).exists():
            fresh.save(run_dir)
            return fresh
        manifest = RunManifest.load(run_dir)
        # How far memory forced the batch size down is an observation, not a setting.
        fresh.settings["batch_size_used"] = manifest.settings.get(
            "batch_size_used", self._config.batch_size
        )
        # For runs from before these settings were recorded: what they did.
        for name, usual in (
            ("bos", "auto"),
            ("begins_with_bos", fresh.settings["begins_with_bos"]),
        ):
            manifest.settings.setdefault(name, usual)
        for what in ("model_id", "tokenizer_hash", "layers", "dtype", "fingerprint", "settings"):
            if getattr(manifest, what) != getattr(fresh, what):
                raise UserError(
                    f"run {run_dir.name!r} was captured with a different {what.replace('_', ' ')}",
                    hint="capture under a new name",
                )
        return manifest

    def _fresh_manifest(self) -> RunManifest:
        lm, config = self._lm, self._config
        return RunManifest(
            run_id="",
            model_id=lm.model_id,
            revision=lm.revision,
            tokenizer_hash=lm.tokenizer_hash,
            layers=self.layers,
            dtype=config.dtype,
            dataset=asdict(config.dataset),
            fingerprint=self._texts.fingerprint(),
            settings={
                **self._source.settings(),
                "batch_size": config.batch_size,
                "batch_size_used": config.batch_size,
                "shard_size": config.shard_size,
                "compute_dtype": str(lm.dtype).removeprefix("torch."),
            },
            created=time(),
        )


def _drop_damaged(run_dir: Path, manifest: RunManifest, progress: Progress) -> RunManifest:
    """The manifest without the parts whose files changed after they were written, as in a power
    cut: these are captured again."""
    if not manifest.parts:
        return manifest
    damaged = list(damaged_files(run_dir, manifest, progress))
    if not damaged:
        return manifest
    with updating_manifest(run_dir) as manifest:
        for one in damaged:
            manifest.drop(one.part)
            progress.log(f"{one.path} is damaged ({one.why}): capturing its part again")
    return manifest


class _ProgressReport:
    """Reports how far a capture is; with several ranks each reports its own times their number."""

    def __init__(
        self, progress: Progress, total: tuple[int, str], manifest: RunManifest, world: int
    ) -> None:
        self._progress, self._world = progress, world
        self._total, self._unit = total
        self._done = manifest.n_tokens if self._unit == "token" else manifest.n_documents
        self._tokens, self._started = 0, perf_counter()

    def batch(self, tokens: int, documents: int) -> None:
        self._tokens += tokens * self._world
        self._done += (tokens if self._unit == "token" else documents) * self._world
        rate = self._tokens / max(perf_counter() - self._started, 1e-9)
        done = min(self._done, self._total)
        self._progress.update(done, self._total, self._unit, {"tokens_s": rate})


def _result(run_dir: Path) -> CaptureResult:
    manifest = RunManifest.load(run_dir)
    return CaptureResult(
        run_dir.name,
        [layer.name for layer in manifest.layers],
        [layer.point for layer in manifest.layers],
        manifest.n_tokens,
        manifest.n_documents,
        manifest.seconds,
        folder_bytes(run_dir),
        manifest.padding_share,
        manifest.rounding_fvu,
    )
