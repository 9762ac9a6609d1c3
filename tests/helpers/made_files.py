"""Files that say what a run or an SAE is, without activations and weights behind them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.workspace import Workspace

LAYER = LayerSpec("model.layers.1", "resid_post.1", 8)


def a_manifest(
    run_id: str = "run",
    layers: Sequence[LayerSpec] = (LAYER,),
    tokens: int | None = 1000,
    **changes: Any,
) -> RunManifest:
    """A complete run of one part with so many tokens; None: of no part."""
    fields: dict[str, Any] = {
        "model_id": "m",
        "revision": None,
        "tokenizer_hash": "",
        "dtype": "bf16",
        "dataset": {},
        "fingerprint": "",
        "settings": {},
        "created": 1.0,
        "status": "complete",
        "parts": [] if tokens is None else [PartSpec(0, 0, 10, tokens)],
    }
    return RunManifest(run_id=run_id, layers=list(layers), **(fields | changes))


def add_run(workspace: Workspace, run_id: str = "run", **fields: Any) -> Path:
    """The folder of a run in a workspace; `fields` are those of `a_manifest`."""
    folder = workspace.make_run_dir(run_id, "")
    a_manifest(run_id, **fields).save(folder)
    return folder


def add_sae(
    workspace: Workspace, sae_id: str = "sae", run_id: str | None = "run", width: int = 8
) -> Path:
    """The folder of an SAE that was trained on a run."""
    folder = workspace.make_sae_dir(sae_id, "")
    own = {"layer": LAYER.name, "run_id": run_id}
    cfg = {"architecture": "topk", "d_in": width, "d_sae": 64, "k": 4, "metadata": {"mi_crow": own}}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder
