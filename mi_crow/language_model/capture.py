"""Capturing activations: texts through the model, kept tokens to shards, part by part.

What a part holds depends on dataset, model and settings alone, so a killed capture goes on after
its last whole part and ends with the same content.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from torch import Tensor

from mi_crow.datasets import TextDataset, load_texts, split_of
from mi_crow.errors import UserError
from mi_crow.language_model.capture_batches import BatchSize, Document, RowCollector
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.tokenize import special_ids, tokenize
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.atomic import remove_stale
from mi_crow.store.manifest import MANIFEST_NAME, LayerSpec, PartSpec, RunManifest
from mi_crow.store.shards import DOCUMENT_SCHEMA, DTYPES, write_part
from mi_crow.store.workspace import Workspace, folder_bytes

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


@dataclass(frozen=True)
class CaptureResult:
    """What a capture made."""

    run_id: str
    layers: list[str]
    tokens: int
    documents: int
    seconds: float
    bytes: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def capture_run(
    workspace: Workspace,
    config: CaptureConfig,
    progress: Progress | None = None,
    run_dir: Path | None = None,
) -> CaptureResult:
    """The capture job: loads model and texts, then captures into `run_dir` (else a new folder).

    Model, layers and dataset are checked before anything is written. A `run_dir` that holds a
    part of the same capture is gone on with. Raises UserError or NotFoundError in one sentence.
    """
    from mi_crow.language_model.language_model import LanguageModel

    texts = load_texts(config.dataset, config.model.offline)
    lm = LanguageModel.from_spec(config.model)
    return Capture(lm, texts, config).run(workspace, progress or NullProgress(), run_dir)


class Capture:
    """One capture of one model over one set of texts."""

    def __init__(self, lm: "LanguageModel", texts: TextDataset, config: CaptureConfig) -> None:
        """Raises NotFoundError for an unknown layer, UserError for a context the model lacks."""
        self._lm, self._texts, self._config = lm, texts, config
        self._points = list(dict.fromkeys(lm.layers.resolve(layer) for layer in config.layers))
        names = [point.name for point in self._points]
        if len(set(names)) < len(names):
            raise UserError(
                f"input and output of {names[0]!r} cannot share a run", hint="capture them apart"
            )
        most = getattr(lm.model.config, "max_position_embeddings", None)
        self._context = min(config.context_length, most or config.context_length)
        self._special = special_ids(lm.tokenizer)

    def run(
        self, workspace: Workspace, progress: Progress, run_dir: Path | None = None
    ) -> CaptureResult:
        """Captures what is not captured yet."""
        fresh = self._fresh_manifest()
        made = run_dir is None
        if run_dir is None:
            run_dir = workspace.make_run_dir(self._config.name, Path(self._config.model.model).name)
        manifest = self._manifest(run_dir, fresh)
        if manifest.status != "complete":
            remove_stale(run_dir / "tokens")
            for layer in manifest.layers:
                remove_stale(run_dir / layer.name)
            try:
                self._capture(run_dir, manifest, progress)
            except BaseException:
                # A folder of ours in which nothing was committed is of no use to anybody.
                if made and not (run_dir / MANIFEST_NAME).exists():
                    workspace.delete(run_dir)
                raise
            manifest.status = "complete"
            manifest.save(run_dir)
        return CaptureResult(
            run_dir.name,
            [layer.name for layer in manifest.layers],
            manifest.n_tokens,
            manifest.n_documents,
            manifest.seconds,
            folder_bytes(run_dir),
        )

    def _capture(self, run_dir: Path, manifest: RunManifest, progress: Progress) -> None:
        """Writes the parts that the manifest does not name yet."""
        shard, limit = self._config.shard_size, self._config.dataset.token_limit
        size = BatchSize(manifest.settings["batch_size_used"], progress.log)
        total = len(self._texts)
        for start in range(len(manifest.parts) * shard, total, shard):
            if limit is not None and manifest.n_tokens >= limit:
                break
            begun = perf_counter()
            room = None if limit is None else limit - manifest.n_tokens
            documents = self._documents(range(start, min(start + shard, total)), room)
            rows = self._activations(documents, progress, manifest, size)
            part = PartSpec(
                0, len(manifest.parts), len(documents), sum(len(d.kept) for d in documents)
            )
            write_part(run_dir, part, self._table(documents), rows)
            manifest.parts.append(part)
            manifest.settings["batch_size_used"] = size.size
            manifest.seconds += perf_counter() - begun
            if manifest.n_tokens:
                manifest.save(run_dir)
                progress.checkpoint(part.stem)
        if not manifest.n_tokens:
            raise UserError(
                f"dataset {self._texts.source!r} gave no tokens",
                hint="its texts hold special tokens alone",
            )

    def _documents(self, numbers: range, room: int | None) -> list[Document]:
        """The numbered texts as tokens, up to the one that fills `room` kept tokens."""
        ids = tokenize(
            self._lm.tokenizer, [self._texts[number] for number in numbers], self._context
        )
        documents, tokens = [], 0
        for number, token_ids in zip(numbers, ids, strict=True):
            kept = [
                position
                for position, token in enumerate(token_ids)
                if self._config.keep_special or token not in self._special
            ]
            documents.append(Document(number, token_ids, kept))
            tokens += len(kept)
            if room is not None and tokens >= room:
                break
        return documents

    def _activations(
        self, documents: list[Document], progress: Progress, manifest: RunManifest, size: BatchSize
    ) -> dict[str, Tensor]:
        """Kept activations [tokens, d] of each layer, rows in document order."""
        collector = RowCollector(self._lm, self._points, documents, DTYPES[self._config.dtype])
        limit = self._config.dataset.token_limit
        done, begun, tokens = manifest.n_documents, perf_counter(), 0
        for batch in collector.collect(size):
            raise_if_stopped(progress)
            tokens += sum(len(documents[i].kept) for i in batch)
            done += len(batch)
            metrics = {"tokens_s": tokens / max(perf_counter() - begun, 1e-9)}
            if limit is None:
                progress.update(done, len(self._texts), "document", metrics)
            else:
                progress.update(min(manifest.n_tokens + tokens, limit), limit, "token", metrics)
        return collector.rows

    def _table(self, documents: list[Document]) -> pa.Table:
        texts = [self._texts[d.number] for d in documents]
        return pa.table(
            {
                "document": [d.number for d in documents],
                "text": texts,
                "label": [self._texts.labels[d.number] for d in documents],
                "split": [split_of(text) for text in texts],
                "token_ids": [d.token_ids for d in documents],
                "kept": [d.kept for d in documents],
            },
            schema=DOCUMENT_SCHEMA,
        )

    def _manifest(self, run_dir: Path, fresh: RunManifest) -> RunManifest:
        """The manifest of a capture to go on with, else `fresh`.

        Raises UserError when the folder holds a capture of something else.
        """
        fresh.run_id = run_dir.name
        if not (run_dir / MANIFEST_NAME).exists():
            return fresh
        manifest = RunManifest.load(run_dir)
        # How far memory forced the batch size down is a reading, not a wish.
        fresh.settings["batch_size_used"] = manifest.settings.get(
            "batch_size_used", self._config.batch_size
        )
        for what in ("model_id", "tokenizer_hash", "layers", "dtype", "fingerprint", "settings"):
            if getattr(manifest, what) != getattr(fresh, what):
                raise UserError(
                    f"run {run_dir.name!r} was captured with another {what.replace('_', ' ')}",
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
            layers=[
                LayerSpec(point.name, point.point, lm.layers.width(point.point))
                for point in self._points
            ],
            dtype=config.dtype,
            dataset=asdict(config.dataset),
            fingerprint=self._texts.fingerprint(),
            settings={
                "context_length": self._context,
                "batch_size": config.batch_size,
                "batch_size_used": config.batch_size,
                "shard_size": config.shard_size,
                "keep_special": config.keep_special,
                "compute_dtype": str(lm.dtype).removeprefix("torch."),
            },
            created=time(),
        )
