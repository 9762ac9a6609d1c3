"""`meta.json` in a run: the counts under the names that the published guides read.

mi-crow itself reads the manifest; this file adds nothing to it.
"""

from typing import Any

from mi_crow.store.runs.manifest import RunManifest

META_NAME = "meta.json"


def published_metadata(manifest: RunManifest) -> dict[str, Any]:
    """`sample_count` documents in `batch_count` batches, and where they come from."""
    documents = sum(part.documents for part in manifest.parts)
    batch = max(1, int(manifest.settings.get("batch_size", 1) or 1))
    return {
        "run_id": manifest.run_id,
        "model": manifest.model_id,
        "layer_signatures": [layer.name for layer in manifest.layers],
        "dataset": manifest.dataset,
        "sample_count": documents,
        "batch_count": -(-documents // batch),
        "token_count": manifest.n_tokens,
    }
