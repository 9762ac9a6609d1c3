"""Runs and SAEs whose latents are what a test says they are.

The SAE's encoder is the identity and k is its width, so a token's activation vector, negatives cut
off, is its latents: a test writes down any activations and knows what the index must hold.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA, stored_rows, write_part
from mi_crow.store.workspace import Workspace
from tests.helpers.index_reference import Doc

LAYER = "model.layers.1"
WIDTH = 32  # of the tiny model
OUTLIER = 1e6


def identity_sae(tokenizer_hash: str | None = None, run_id: str = "run", n: int = WIDTH) -> TopKSae:
    """z = relu(x); tokens of a norm above OUTLIER are outliers."""
    sae = TopKSae(n, n, n)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(n))
        sae.encoder_rows.copy_(torch.eye(n))
    sae.metadata = SaeMetadata(
        model_name="tiny",
        layer=LAYER,
        point="resid_post.1",
        run_id=run_id,
        tokenizer_hash=tokenizer_hash,
        outlier_norm=OUTLIER,
    )
    return sae


def save_sae(workspace: Workspace, sae: TopKSae, sae_id: str = "sae") -> None:
    workspace.ensure()
    sae.save(workspace.make_sae_dir(sae_id, sae_id))


def documents(tokenizer: Any, texts: Sequence[str], acts: Sequence[np.ndarray]) -> list[Doc]:
    """Documents whose kept tokens (all but the first) have the given activations [<= kept, d],
    recycled where there are fewer."""
    docs = []
    for number, (text, rows) in enumerate(zip(texts, acts, strict=True)):
        ids = list(tokenizer(text)["input_ids"])
        kept = list(range(1, len(ids)))
        filled = rows[np.arange(len(kept)) % len(rows)] if len(rows) else rows[:0]
        kept = kept[: len(filled)]
        docs.append(Doc(number, text, None, "train", ids, [], kept, filled.astype(np.float32)))
    return docs


def save_run(
    workspace: Workspace,
    docs: Sequence[Doc],
    tokenizer_hash: str,
    run_id: str = "run",
    part_documents: int = 1000,
    **fields: Any,
) -> None:
    """Writes documents as a complete run in fp32; outliers get a huge negative first entry."""
    workspace.ensure()
    folder = workspace.make_run_dir(run_id, run_id)
    width = docs[0].acts.shape[1]
    parts = []
    for first in range(0, len(docs), part_documents):
        some = docs[first : first + part_documents]
        rows = np.concatenate([_stored(doc) for doc in some]).astype(np.float32)
        part = PartSpec(0, len(parts), len(some), len(rows))
        table = pa.table(
            {
                "document": [doc.document for doc in some],
                "window": [0 for _ in some],
                "text": [doc.text for doc in some],
                "label": [doc.label for doc in some],
                "split": [doc.split for doc in some],
                "token_ids": [doc.token_ids for doc in some],
                "kept": [doc.kept for doc in some],
            },
            schema=DOCUMENT_SCHEMA,
        )
        write_part(folder, part, table, {LAYER: stored_rows(torch.from_numpy(rows), "fp32")})
        parts.append(part)
    manifest = RunManifest(
        run_id=run_id,
        model_id="tiny",
        revision=None,
        tokenizer_hash=tokenizer_hash,
        layers=[LayerSpec(LAYER, "resid_post.1", width)],
        dtype="fp32",
        dataset={"source": "test"},
        fingerprint="0" * 16,
        settings={},
        created=0.0,
        status="complete",
        parts=parts,
    )
    replace(manifest, **fields).save(folder)


def _stored(doc: Doc) -> np.ndarray:
    rows = doc.acts.copy()
    # Latents that are off are negative before the ReLU, as in a real SAE.
    rows[rows == 0] = -0.25
    if doc.outlier:
        rows[np.array(doc.outlier, dtype=bool), 0] = -10 * OUTLIER
    return rows
