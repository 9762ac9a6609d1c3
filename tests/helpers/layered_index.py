"""The fixture's index as of an SAE over several layers."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np

from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

LAYERS = ("mlp_in.0", "mlp_in.2", "mlp_in.3")
WRITTEN = ("mlp_out.0", "mlp_out.2", "mlp_out.3")
FIRSTS = (0, 20, 50)  # of 64 features
FEATURES = 64
PLAIN = "fixture-sae"  # an SAE of one layer, which is made beside


def layer_places() -> np.ndarray:
    """The place in LAYERS of each feature's layer."""
    return np.searchsorted(FIRSTS, np.arange(FEATURES), side="right") - 1


def make_layered_index(
    workspace: Workspace, sae_id: str, *, shared: bool = False, schema: int = INDEX_SCHEMA_VERSION
) -> None:
    """An index over several layers: of a cross-layer transcoder, or of a crosscoder, whose latents
    are `shared` by all layers; as of an earlier `schema` if that is asked for."""
    make_index(workspace)  # computed once for all tests
    shutil.copytree(workspace.saes_dir / PLAIN, workspace.saes_dir / sae_id, dirs_exist_ok=True)
    names = [name.replace("mlp_in", "resid_post") for name in LAYERS] if shared else list(LAYERS)
    facts = {"layer": "resid_post.0,2,3" if shared else "mlp_in.0,2,3"}
    if not shared or schema > 3:
        facts["layers"] = json.dumps(names)
    if not shared:
        facts["first_features"] = json.dumps(FIRSTS)
    if schema > 3:
        facts["layers_written"] = json.dumps(names if shared else WRITTEN)
    path: Path = workspace.index_path(sae_id)
    places = layer_places()
    norms = np.where(places[:, None] == np.arange(len(LAYERS)), 2.0, 0.5)
    if not shared:
        norms[np.arange(len(LAYERS)) < places[:, None]] = 0.0
    _write_cfg(path.parent, names, shared)
    facts["schema_version"] = str(schema)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM meta WHERE list_contains(?, key)", [list(facts)])
        connection.execute(
            "INSERT INTO meta SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
            [list(facts), list(facts.values())],
        )
        if schema < 4:
            connection.execute("DROP TABLE feature_layers")
            return
        connection.execute(
            "INSERT INTO feature_layers SELECT unnest(?::INTEGER[]), unnest(?::SMALLINT[]), "
            "unnest(?::FLOAT[][])",
            [list(range(FEATURES)), places.tolist(), norms.tolist()],
        )


def _write_cfg(folder: Path, names: Sequence[str], shared: bool) -> None:
    path = folder / "cfg.json"
    found = json.loads(path.read_text())
    found["metadata"] = {**found.get("metadata", {}), "layers": [*names]}
    found["layers"] = [{"read": name} for name in names]
    path.write_text(json.dumps({**found, "shared": shared}))
