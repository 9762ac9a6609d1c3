"""Features of an SAE with random weights on the same activations: what scores say of nothing that
was learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.explain.explanations.texts import (
    AROUND,
    SHOWN,
    TESTED,
    Material,
    Passage,
    is_held_out,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.reader import RunReader

_LATENTS = 2048
_TOKENS = 100_000  # that are encoded
_BATCH = 4096
_DOCUMENTS = 4 * TESTED  # of one feature, over all its quantiles
_CANDIDATES = 8  # for each feature that is wanted: many fire in too few documents


@dataclass(frozen=True)
class Untrained:
    """Where some latents of an untrained SAE fire; arrays with a row for each firing."""

    store: FeatureStore
    latents: tuple[int, ...]  # those that fire in enough documents
    latent: np.ndarray
    document: np.ndarray  # its number in the index
    position: np.ndarray
    act: np.ndarray
    documents: int  # that were read
    seed: int

    def material(self, latent: int) -> Material:
        """Its texts, parted as those of a feature are."""
        mine = self.latent == latent
        document, act = self.document[mine], self.act[mine]
        order = np.argsort(-act, kind="stable")
        _, first = np.unique(document[order], return_index=True)
        peaks = order[np.sort(first)]  # the strongest of each document, the strongest first
        some = peaks[np.linspace(0, len(peaks) - 1, min(len(peaks), _DOCUMENTS)).astype(int)]
        position = self.position[mine]
        texts = self._tokens(document[some].tolist())
        shown, held_out = [], []
        for peak in some.tolist():
            number = int(document[peak])
            acts = np.zeros(len(texts[number]))
            here = document == number
            acts[position[here]] = act[here]
            one = _around(number, texts[number], acts, int(position[peak]))
            (held_out if is_held_out(number, self.seed) else shown).append(one)
        return Material(latent, tuple(shown[:SHOWN]), tuple(held_out[:TESTED]), (), "")

    def silent(self, material: Material) -> list[Passage]:
        """Texts of other documents, without a firing."""
        own = np.unique(self.document[self.latent == material.feature])
        others = np.setdiff1d(np.arange(self.documents), own)
        rng = np.random.default_rng([self.seed, material.feature])
        texts = self._tokens(rng.permutation(others)[:TESTED].tolist())
        return [
            _around(number, tokens, np.zeros(len(tokens)), int(rng.integers(len(tokens))))
            for number, tokens in texts.items()
            if tokens
        ]

    def _tokens(self, documents: Sequence[int]) -> dict[int, list[str]]:
        rows = self.store.connection.rows(
            "SELECT document, token_texts FROM idx.documents "
            "WHERE list_contains(?::INTEGER[], document)",
            [list(documents)],
        )
        return dict(rows)


def _around(number: int, tokens: Sequence[str], acts: np.ndarray, at: int) -> Passage:
    first, last = max(at - AROUND, 0), at + AROUND + 1
    return Passage(number, first, tuple(tokens[first:last]), tuple(acts[first:last].tolist()))


@torch.inference_mode()
def untrained_features(
    run_dir: Path, sae_dir: Path, store: FeatureStore, count: int, seed: int
) -> Untrained:
    """`count` latents of an SAE with random weights that are about as dense as the real one's, on
    the activations of the run that was indexed. Raises UserError where too few fire often."""
    reader, sae = _opened(run_dir, sae_dir)
    size = min(sae.n_latents, _LATENTS)
    density = float(store.columns().density.mean())
    centre = sae.b_dec.detach() if not sae.transcodes else None
    k = max(round(density * size), 1)
    control = TopKSae.random(size, sae.n_inputs, k, b_dec=centre, seed=seed).eval()
    limit = sae.metadata.outlier_norm
    candidates = np.random.default_rng(seed).permutation(size)[: count * _CANDIDATES]
    wanted = torch.from_numpy(np.sort(candidates))
    found: list[list[np.ndarray]] = []
    rows = documents = 0
    for part in reader.parts():
        for first in range(0, len(part), _BATCH):
            some = slice(first, min(first + _BATCH, len(part)))
            latents = control.encode_sparse(part.take(some).float())
            fires = torch.isin(latents.indices, wanted) & (latents.values > 0)
            if limit is not None:
                fires &= (part.norms[some] <= limit)[:, None]
            row, place = fires.nonzero(as_tuple=True)
            where = row + first
            columns = (
                latents.indices[row, place],
                part.table_row[where] + documents,
                part.row_position[where],
                latents.values[row, place],
            )
            found.append([one.numpy() for one in columns])
        documents += len(part.kept_counts)
        rows += len(part)
        if rows >= _TOKENS:
            break
    latent, document, position, act = (np.concatenate(one) for one in zip(*found, strict=True))
    pairs = np.unique(np.stack([latent, document]), axis=1)[0]
    known, counts = np.unique(pairs, return_counts=True)
    enough = known[counts >= 2 * TESTED][:count].tolist()
    if not enough:
        raise UserError("the latents of an untrained SAE fire in too few of the indexed texts")
    return Untrained(store, tuple(enough), latent, document, position, act, documents, seed)


def _opened(run_dir: Path, sae_dir: Path) -> tuple[RunReader, SparseAutoencoder]:
    sae = load_sae(sae_dir)
    if isinstance(sae, CrossLayerSae):
        raise UserError("it is for SAEs of one layer")
    layer = stored_layer(RunManifest.load(run_dir), sae.metadata.layer_signature)
    return RunReader(run_dir, layer.name), sae
