"""Vectors in the workspace of a test, and what a session finds in one."""

import numpy as np
from safetensors.numpy import save_file

from mi_crow.store.workspace import Workspace

INSIDE = {
    "features": {
        "sae_id": "demo-topk",
        "nearest": [{"feature": 3, "cosine": 0.81}],
        "pursuit": [{"feature": 17, "coefficient": 1.5}],
        "explained": 0.64,
    },
    "texts": {"run_id": "demo", "top": [{"projection": 1.2, "text": "gulls"}]},
}


def add_vector(workspace: Workspace, name: str, made_for: str = "label:sea") -> None:
    """A vector of norm 4 at resid_post.2 of the sample model."""
    workspace.vectors_dir.mkdir(exist_ok=True)
    made = (
        f'{{"method": "probe", "model_id": "sample", "for": ["{made_for}"], "layers":'
        ' {"resid_post.2": {"auroc_heldout": 0.97}}, "created": 1790000000}'
    )
    values = {"resid_post.2": np.full(4, 2.0, dtype=np.float32)}
    save_file(values, workspace.vectors_dir / f"{name}.safetensors", {"mi_crow": made})
