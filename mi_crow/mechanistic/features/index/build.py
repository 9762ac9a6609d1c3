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

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.config import COUNTING, OF_WEIGHTS, READING, IndexConfig
from mi_crow.mechanistic.features.index.codes import CodeStore
from mi_crow.mechanistic.features.index.encode_pass import EncodePass
from mi_crow.mechanistic.features.index.primitives import arithmetic_device
from mi_crow.mechanistic.features.index.ranked.merging import ChunkFiles, merged
from mi_crow.mechanistic.features.index.ranked.spool import Spool, write_spooled
from mi_crow.mechanistic.features.index.sources import Sources, find_sources
from mi_crow.mechanistic.features.index.tables.feature_tables import FeatureTables
from mi_crow.mechanistic.features.index.tables.layers import layer_facts, write_layers
from mi_crow.mechanistic.features.index.tables.weight_copy import (
    content_digest,
    copy_weights,
    weights_digest,
)
from mi_crow.mechanistic.features.index.tables.weight_origin import known_content, weights_origin
from mi_crow.mechanistic.features.index.tables.weight_tables import write_directions, write_logits
from mi_crow.mechanistic.features.index.write import IndexWriter, TableWriter, writing_index
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.fitting import check_not_signed
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.rules.rounding import round_product, rounding_fact
from mi_crow.mechanistic.sae.targets import target_layer
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.share import Share
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
    ranks: Ranks = ALONE,
) -> IndexResult:
    """Streams runs or texts through the SAE once and writes everything about every feature.

    Several processes (`ranks`) share the documents, then the features; the first one writes what a
    single process would write, row for row.

    `sae` and `lm` are loaded where they are not given. An existing index stays readable until the
    new one replaces it; concepts are stored elsewhere and stay.

    Raises UserError before anything is written when SAE, run and model do not match, CancelledError
    when asked to stop, RankLostError when another process is gone.
    """
    progress = progress or NullProgress()
    begun = time.perf_counter()
    path = workspace.index_path(config.sae_id)
    from_files = sae is None and lm is None
    sae = sae or load_sae(path.parent, device=_device(config.device))
    check_not_signed(sae, config.sae_id, "indexed")
    round_product(sae, config.sae_id, config.precision, "indexed")
    sources = find_sources(workspace, config, sae, progress, lm)
    room = explain_shortage(f"indexing {config.sae_id!r} on {sae.device}", _LESS, path.parent)
    with room, _opened(path, ranks) as (writer, share):
        weights = _weights(path, config, sae, sources, from_files) if writer is not None else {}
        tokens = _fill_tables(writer, share, path, config, sae, sources, weights, progress)
    ranks.wait()  # until the first process has renamed the file
    return IndexResult(
        config.sae_id,
        sae.n_latents,
        tokens,
        time.perf_counter() - begun,
        path.stat().st_size,
        tuple(sources.run_ids),
    )


@contextmanager
def _opened(path: Path, ranks: Ranks) -> Iterator[tuple[IndexWriter | None, Share]]:
    """The writer, in the first process, and the share of each. What is temporary goes in the
    end."""
    if ranks.rank > 0:
        yield None, Share(ranks, Path(ranks.agree(None)))
        return
    with (
        _locked(path.parent),
        writing_index(path) as writer,
        tempfile.TemporaryDirectory(
            prefix=f"{TMP_PREFIX}index-", dir=path.parent, ignore_cleanup_errors=ranks.world > 1
        ) as scratch,
    ):
        yield writer, Share(ranks, Path(ranks.agree(scratch)))


def _fill_tables(
    writer: IndexWriter | None,
    share: Share,
    path: Path,
    config: IndexConfig,
    sae: SparseAutoencoder,
    sources: Sources,
    facts: dict[str, str],
    progress: Progress,
) -> int:
    """Fills every table; returns the number of tokens, outliers left out. `writer` is None in all
    processes but the first; `facts` are those of the weights."""
    copied = None
    if config.append:
        copied = copy_weights(writer, path, facts["weights"]) if writer is not None else {}
        copied = share.gather(copied or {})[0] or None
    tables_to: TableWriter = writer if share.alone and writer else Spool(share.own_folder())
    weights = copied
    if weights is None:
        progress.log(OF_WEIGHTS)
        weights = write_directions(tables_to, config, sae, progress, share)
        weights |= write_logits(tables_to, config, sae, sources.lm, progress, share)
        weights = share.gather(weights)[0]
        if share.is_first:
            write_layers(tables_to, sae)
    progress.log(READING)
    codes, files = CodeStore(share.folder, sae.n_latents), ChunkFiles(share.own_folder())
    encoding = EncodePass(
        sae,
        codes if share.alone else files,
        tables_to,
        sources.lm.tokenizer,
        config.seed,
        config.batch_size,
        share,
        progress.log,
    )
    encoding.run(sources, progress)
    corpus, bins, numberings = encoding.corpus, encoding.bins, ()
    if not share.alone:
        device = arithmetic_device(sae.device)
        whole = merged(share, corpus, bins, files, sae.n_latents, config.seed, device)
        corpus, bins, codes, numberings = whole.corpus, whole.bins, whole.codes, whole.numberings
        sources.check_any(corpus.n_tokens + corpus.n_outliers)
    progress.log(COUNTING)
    tables = FeatureTables(tables_to, config, corpus, bins.bins(), weights, share)
    tables.write(codes, progress)
    share.ranks.wait()
    if writer is None:
        return corpus.n_tokens
    if not share.alone:
        folders = [share.own_folder(rank) for rank in range(share.ranks.world)]
        write_spooled(writer, folders, numberings)
    writer.write_meta(
        {
            "sae_id": config.sae_id,
            "model_id": sources.model_id,
            "layer": sources.layer,
            "target_layer": target_layer(sae),
            **layer_facts(sae),
            "n_features": sae.n_latents,
            "n_tokens": corpus.n_tokens,
            "n_documents": corpus.n_documents,
            "n_outliers": corpus.n_outliers,
            "outlier_norm": sae.metadata.outlier_norm,
            "built_at": time.time(),
            "sources": sources.as_json(),
            "seed": config.seed,
            "window": config.window,
            "bands": config.bands,
            "map": config.map,
            **facts,
            **encoding.size.used(),
            **rounding_fact(sae),
            **tables.facts(),
        }
    )
    return corpus.n_tokens


def _weights(
    path: Path, config: IndexConfig, sae: SparseAutoencoder, sources: Sources, from_files: bool
) -> dict[str, str]:
    """What `meta` says of the weights. Those that came from the same files as the weights of the
    index there is are not read once more."""
    lm, origin = sources.lm, ""
    if from_files:
        kinds = str(sae.decoder_rows.dtype), str(lm.dtype)
        origin = weights_origin(path.parent, kinds[0], lm.model_id, lm.revision, kinds[1])
    content = known_content(path, origin) or content_digest(sae, lm)
    digest = weights_digest(content, sae, lm, config)
    return {"weights": digest, "weights_content": content, "weights_origin": origin}


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
