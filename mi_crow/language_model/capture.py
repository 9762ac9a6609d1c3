"""Capturing activations: texts through the model, kept tokens to shards, part by part.

What a part holds depends on dataset, model and settings alone, so a killed capture goes on after
its last whole part and ends with the same content.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset, load_texts, split_of
from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.tokenize import pad, special_ids, tokenize
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


@dataclass(frozen=True)
class Document:
    """One text as tokens."""

    number: int  # in the dataset
    token_ids: list[int]
    kept: list[int]  # positions whose activations are kept


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

    texts = load_texts(config.dataset)
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
        if run_dir is None:
            run_dir = workspace.make_run_dir(self._config.name, Path(self._config.model.model).name)
        manifest = self._manifest(run_dir, fresh)
        if manifest.status != "complete":
            remove_stale(run_dir / "tokens")
            for layer in manifest.layers:
                remove_stale(run_dir / layer.name)
            self._capture(run_dir, manifest, progress)
            if not manifest.n_tokens:
                raise UserError(
                    f"dataset {self._texts.source!r} gave no tokens",
                    hint="its texts hold special tokens alone",
                )
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
        size, limit = self._config.shard_size, self._config.dataset.token_limit
        total = len(self._texts)
        first = len(manifest.parts) * size
        for start in range(first, total, size):
            if limit is not None and manifest.n_tokens >= limit:
                return
            begun = perf_counter()
            room = None if limit is None else limit - manifest.n_tokens
            documents = self._documents(range(start, min(start + size, total)), room)
            rows = self._activations(documents, progress, manifest.n_documents)
            part = PartSpec(
                0, len(manifest.parts), len(documents), sum(len(d.kept) for d in documents)
            )
            write_part(run_dir, part, self._table(documents), rows)
            manifest.parts.append(part)
            manifest.seconds += perf_counter() - begun
            manifest.save(run_dir)
            progress.checkpoint(part.stem)

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
        self, documents: list[Document], progress: Progress, done: int
    ) -> dict[str, Tensor]:
        """Kept activations [tokens, d] of each layer, rows in document order."""
        dtype = DTYPES[self._config.dtype]
        starts = _starts(documents)
        rows = {
            point.name: torch.empty(starts[-1], self._lm.layers.width(point.point), dtype=dtype)
            for point in self._points
        }
        begun, tokens = perf_counter(), 0
        for batch in _batches(documents, self._config.batch_size):
            raise_if_stopped(progress)
            encoding = pad([documents[i].token_ids for i in batch], self._lm.tokenizer)
            encoding = encoding.to(self._lm.device)
            found = run_to(self._lm, self._points, encoding.input_ids, encoding.attention_mask)
            for point, tensor in found.items():
                self._keep(rows[point.name], tensor, documents, batch, starts, point.point)
            tokens += sum(len(documents[i].kept) for i in batch)
            done += len(batch)
            metrics = {"tokens_s": tokens / max(perf_counter() - begun, 1e-9)}
            progress.update(done, len(self._texts), "document", metrics)
        return rows

    def _keep(
        self,
        rows: Tensor,
        tensor: Tensor,
        documents: list[Document],
        batch: list[int],
        starts: list[int],
        point: str,
    ) -> None:
        """Copies a batch's kept positions to their place: one gather, one copy to the host."""
        line = torch.cat([torch.full((len(documents[i].kept),), b) for b, i in enumerate(batch)])
        column = torch.cat([torch.tensor(documents[i].kept, dtype=torch.int64) for i in batch])
        picked = tensor[line.to(tensor.device), column.to(tensor.device)]
        finite = picked.isfinite().all(dim=1)
        if not bool(finite.all()):
            owner = documents[batch[int(line[int((~finite).nonzero()[0, 0])])]]
            raise MiCrowError(
                f"layer {point!r} gave NaN or infinity in document {owner.number}",
                hint="compute in fp32 or bf16 (--model-dtype), or leave that document out",
            )
        picked = picked.to(rows.dtype).cpu()
        offset = 0
        for i in batch:
            length = len(documents[i].kept)
            rows[starts[i] : starts[i] + length] = picked[offset : offset + length]
            offset += length

    def _table(self, documents: list[Document]) -> pa.Table:
        texts = [self._texts[d.number] for d in documents]
        return pa.table(
            {
                "document": [d.number for d in documents],
                "text": [text.encode("utf-8", "replace").decode() for text in texts],
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
                "shard_size": config.shard_size,
                "keep_special": config.keep_special,
                "compute_dtype": str(lm.dtype).removeprefix("torch."),
            },
            created=time(),
        )


def _starts(documents: list[Document]) -> list[int]:
    """First row of each document, and the total."""
    starts = [0]
    for document in documents:
        starts.append(starts[-1] + len(document.kept))
    return starts


def _batches(documents: list[Document], size: int) -> Iterator[list[int]]:
    """Places of documents of like length, so that padding is a small share."""
    order = sorted(range(len(documents)), key=lambda i: (len(documents[i].token_ids), i))
    order = [i for i in order if documents[i].kept]
    for start in range(0, len(order), size):
        yield order[start : start + size]
