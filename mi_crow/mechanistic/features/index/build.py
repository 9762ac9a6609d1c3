"""Builds the feature index of an SAE: `saes/<id>/features.duckdb`, complete or not at all."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.codes import CodeStore
from mi_crow.mechanistic.features.index.encode_pass import EncodePass
from mi_crow.mechanistic.features.index.sources import Sources, find_sources
from mi_crow.mechanistic.features.index.tables.feature_tables import FeatureTables
from mi_crow.mechanistic.features.index.tables.weight_copy import copy_weights, weights_digest
from mi_crow.mechanistic.features.index.tables.weight_tables import write_directions, write_logits
from mi_crow.mechanistic.features.index.write import IndexWriter, writing_index
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.fitting import check_not_signed
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.targets import target_layer
from mi_crow.progress import NullProgress, Progress
from mi_crow.store.atomic import TMP_PREFIX
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_LESS = "lower --batch-size, or take another --device"


@dataclass(frozen=True)
class IndexResult(JsonRecord):
    """One finished index."""

    sae_id: str
    features: int
    tokens: int  # outliers left out
    seconds: float
    bytes: int
    run_ids: tuple[str, ...]


def build_index(
    workspace: Workspace,
    config: IndexConfig,
    progress: Progress | None = None,
    sae: SparseAutoencoder | None = None,
    lm: "LanguageModel | None" = None,
) -> IndexResult:
    """Streams runs or texts through the SAE once and writes everything about every feature.

    `sae` and `lm` are loaded where they are not given. An existing index stays readable until the
    new one replaces it; concepts are stored elsewhere and stay.

    Raises UserError before anything is written when SAE, run and model do not match, CancelledError
    when asked to stop.
    """
    progress = progress or NullProgress()
    begun = time.perf_counter()
    path = workspace.index_path(config.sae_id)
    sae = sae or load_sae(path.parent, device=_device(config.device))
    check_not_signed(sae, config.sae_id, "indexed")
    _round_product(sae, config)
    sources = find_sources(workspace, config, sae, progress, lm)
    room = explain_shortage(f"indexing {config.sae_id!r} on {sae.device}", _LESS, path.parent)
    with room, _locked(path.parent), writing_index(path) as writer:
        tokens = _fill_tables(writer, path, config, sae, sources, progress)
    return IndexResult(
        config.sae_id,
        sae.n_latents,
        tokens,
        time.perf_counter() - begun,
        path.stat().st_size,
        tuple(sources.run_ids),
    )


def _round_product(sae: SparseAutoencoder, config: IndexConfig) -> None:
    """Lets the encoder's product be in bf16 where that was asked for. Raises UserError for a rule
    that does not compare latents with each other."""
    if config.precision == "fp32":
        return
    if not isinstance(sae, TopKSae) or type(sae)._encode_rows is not TopKSae._encode_rows:
        raise UserError(
            f"SAE {config.sae_id!r} of architecture {sae.architecture} cannot be indexed in "
            f"{config.precision}",
            hint="use --precision fp32; bf16 is for topk",
        )
    sae.rounded_to = torch.bfloat16


def _fill_tables(
    writer: IndexWriter,
    path: Path,
    config: IndexConfig,
    sae: SparseAutoencoder,
    sources: Sources,
    progress: Progress,
) -> int:
    """Fills every table; returns the number of tokens, outliers left out."""
    digest = weights_digest(sae, sources.lm, config)
    weights = copy_weights(writer, path, digest) if config.append else None
    if weights is None:
        progress.log("directions, neighbours and logits")
        weights = write_directions(writer, config, sae, progress)
        weights |= write_logits(writer, config, sae, sources.lm, progress)
    progress.log("activations")
    with tempfile.TemporaryDirectory(prefix=f"{TMP_PREFIX}index-", dir=path.parent) as scratch:
        codes = CodeStore(Path(scratch), sae.n_latents)
        encoding = EncodePass(
            sae, codes, writer, sources.lm.tokenizer, config.seed, config.batch_size
        )
        encoding.run(sources, progress)
        progress.log("statistics and examples")
        tables = FeatureTables(writer, config, encoding.corpus, encoding.bins.bins(), weights)
        tables.write(codes, progress)
    writer.write_meta(
        {
            "sae_id": config.sae_id,
            "model_id": sources.model_id,
            "layer": sources.layer,
            "target_layer": target_layer(sae),
            **_layers(sae),
            "n_features": sae.n_latents,
            "n_tokens": encoding.corpus.n_tokens,
            "n_documents": encoding.corpus.n_documents,
            "n_outliers": encoding.corpus.n_outliers,
            "outlier_norm": sae.metadata.outlier_norm,
            "built_at": time.time(),
            "sources": sources.as_json(),
            "seed": config.seed,
            "window": config.window,
            "bands": config.bands,
            "map": config.map,
            "weights": digest,
            **tables.facts(),
        }
    )
    return encoding.corpus.n_tokens


def _layers(sae: SparseAutoencoder) -> dict[str, Any]:
    """Of an SAE over several layers: each layer with the first of its features, where these are of
    one layer."""
    if not isinstance(sae, CrossLayerSae) or isinstance(sae, SharedCrosscoder):
        return {}
    return {"layers": list(sae.layers), "first_features": list(sae.first_latents.values())}


def _device(name: str) -> Any:
    from mi_crow.language_model.loading import torch_device

    return torch_device(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Allows one index job per SAE; removes what a killed one left."""
    with (folder / ".index.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"SAE {folder.name!r} is being indexed by another process",
                hint="wait: mi-crow jobs",
            ) from error
        for stale in folder.glob(f"{TMP_PREFIX}*"):
            if stale.is_dir() and stale.name.startswith(f"{TMP_PREFIX}index-"):
                shutil.rmtree(stale, ignore_errors=True)
            elif "features.duckdb" in stale.name:
                stale.unlink(missing_ok=True)
        yield
