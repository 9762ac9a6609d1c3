"""`mi-crow feature N --similar-in SAE`: the most similar features of another SAE."""

from typing import TYPE_CHECKING

from mi_crow.cli.formatting import count, print_json
from mi_crow.cli.tables import print_table
from mi_crow.errors import MiCrowError
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow


def print_similar(
    workspace: Workspace, sae_id: str, feature: int, other: str, as_json: bool
) -> int:
    """Prints the nearest features of `other` by decoder cosine, with data of its index if any."""
    from mi_crow.mechanistic.features.similar import DecoderRows, similar_features

    ours = DecoderRows.open(workspace.sae_dir(sae_id), sae_id)
    theirs = DecoderRows.open(workspace.sae_dir(other), other)
    found = similar_features(ours, feature, theirs)
    rows = _indexed(workspace, other, [one.feature for one in found])
    if as_json:
        names = [row.concept if row else None for row in map(rows.get, (o.feature for o in found))]
        similar = [
            {**one._asdict(), "concept": name} for one, name in zip(found, names, strict=True)
        ]
        print_json({"feature": feature, "sae": sae_id, "similar_in": other, "similar": similar})
        return 0
    columns = [f">in {other}", ">cosine", ">fires", "concept…"]
    lines = []
    for one in found:
        row = rows.get(one.feature)
        known = [count(row.fires), row.concept or ""] if row else ["", ""]
        lines.append([str(one.feature), f"{one.cosine:.3f}", *known])
    print_table(columns, lines)
    return 0


def _indexed(workspace: Workspace, sae_id: str, features: list[int]) -> "dict[int, FeatureRow]":
    """The index rows of these features; none when the index cannot be read."""
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore

    try:
        store = FeatureStore.open(workspace, sae_id, Annotations(workspace.annotations_path))
        return {row.feature: row for row in store.rows(features)}
    except MiCrowError:
        return {}
