"""The whole dashboard set of an SAE in the batch layout of Neuronpedia's data sets. Torch-free.

    <folder>/release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl
    <folder>/features/batch-0.jsonl.gz       one row a feature (its table `Neuron`)
    <folder>/activations/batch-0.jsonl.gz    one row an example (`Activation`)
    <folder>/explanations/batch-0.jsonl.gz   one row a name (`Explanation`)

The fields are those of apps/webapp/prisma/schema.prisma; what an index does not have is empty.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.concept_files import write_concepts
from mi_crow.mechanistic.concepts.exchange.neuronpedia import (
    explained_row,
    explanation_rows,
    is_explanations,
    json_lines,
    moment_text,
    packed,
    proposal_row,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import Concept, Example, FeatureDetail
from mi_crow.paths import check_folder_of
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.atomic import whole_folder, write_bytes
from mi_crow.store.workspace import Workspace, read_sae_summary

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations

FEATURES_A_BATCH = 512
EXAMPLES = 20  # of each band
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class DashboardIds:
    """What the set is called at Neuronpedia."""

    model_id: str  # such as gpt2-small
    source_id: str  # such as 10-res-jb
    author: str = "mi-crow"

    def __post_init__(self) -> None:
        for what, name in (("model id", self.model_id), ("source id", self.source_id)):
            if not _ID.fullmatch(name):
                raise UserError(
                    f"{name!r} is not a valid {what}",
                    hint="letters, digits, dashes, dots and underscores, such as 10-res-jb",
                )

    @property
    def source_set(self) -> str:
        """The source id without its layer."""
        layer, _, rest = self.source_id.partition("-")
        return rest if layer.isdigit() and rest else self.source_id


def usual_ids(model_id: str, layer: str, sae_id: str) -> DashboardIds:
    """Ids made from the names of the model, the layer and the SAE."""
    layers = re.findall(r"\d+", layer)
    model = re.sub(r"[^a-z0-9._-]+", "-", model_id.rpartition("/")[2].lower()).strip("-._")
    return DashboardIds(model or "model", f"{layers[-1] if layers else 0}-{sae_id}"[:128])


def export_dashboards(
    store: FeatureStore,
    features: Sequence[int],
    folder: Path,
    ids: DashboardIds,
    *,
    proposed: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes features with their activations and names into a new folder, whole or not at all.

    `proposed` adds the proposed name of each feature that nobody has named. Returns the numbers of
    rows. Raises UserError for a folder that exists, and CancelledError when asked to stop.
    """
    progress = progress or NullProgress()
    if os.path.lexists(folder):
        raise UserError(f"{str(folder)!r} exists already", hint="name a new folder")
    check_folder_of(folder)
    if not len(features):
        raise UserError("no features to write")
    with whole_folder(folder.absolute()) as scratch:
        counts = _write(store, features, scratch, ids, proposed, progress)
    return {"folder": str(folder), "model_id": ids.model_id, "source_id": ids.source_id, **counts}


def _write(
    store: FeatureStore,
    features: Sequence[int],
    folder: Path,
    ids: DashboardIds,
    proposed: bool,
    progress: Progress,
) -> dict[str, int]:
    now = time.time()
    for name, row in _heads(store, ids, now).items():
        write_bytes(folder / f"{name}.jsonl", json_lines([row]))
    counts = {"features": 0, "activations": 0, "explanations": 0}
    for kind in counts:
        (folder / kind).mkdir()
    for number, first in enumerate(range(0, len(features), FEATURES_A_BATCH)):
        raise_if_stopped(progress, resumable=False)
        rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in counts}
        for feature in features[first : first + FEATURES_A_BATCH]:
            detail = store.detail(int(feature))
            bands = store.all_examples(int(feature), EXAMPLES)
            rows["features"].append(_feature_row(detail, ids, now))
            rows["activations"] += _activation_rows(int(feature), bands, ids, now)
            rows["explanations"] += _explanations(detail, ids, proposed, now)
        for kind, some in rows.items():
            counts[kind] += len(some)
            if some:
                path = folder / kind / f"batch-{number}.jsonl.gz"
                write_bytes(path, packed(json_lines(some)))
        progress.update(first + len(rows["features"]), len(features), "feature")
    return counts


def _heads(store: FeatureStore, ids: DashboardIds, now: float) -> Mapping[str, dict[str, Any]]:
    """The one row of each of the four files beside the batches."""
    meta, moment = store.meta(), moment_text(now)
    said = f"{meta.n_features:,} features of {meta.layer} of {meta.model_id}"
    own = {"creatorId": ids.author, "createdAt": moment}
    return {
        "release": {
            "name": ids.source_set,
            "description": said,
            "descriptionShort": said,
            "urls": [],
            "creatorNameShort": ids.author,
            "creatorName": ids.author,
            **own,
        },
        "model": {
            "id": ids.model_id,
            "displayNameShort": ids.model_id,
            "displayName": meta.model_id,
            "owner": meta.model_id.partition("/")[0],
            "updatedAt": moment,
            **own,
        },
        "sourceset": {
            "modelId": ids.model_id,
            "name": ids.source_set,
            "description": said,
            "creatorName": ids.author,
            "releaseName": ids.source_set,
            "visibility": "PUBLIC",
            **own,
        },
        "source": {
            "modelId": ids.model_id,
            "id": ids.source_id,
            "setName": ids.source_set,
            "visibility": "PUBLIC",
            "num_prompts": meta.n_documents,
            "notes": f"indexed on {meta.n_tokens:,} tokens by mi-crow",
            **own,
        },
    }


def _feature_row(detail: FeatureDetail, ids: DashboardIds, now: float) -> dict[str, Any]:
    edges = detail.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    return {
        "modelId": ids.model_id,
        "layer": ids.source_id,
        "index": str(detail.row.feature),
        "creatorId": ids.author,
        "createdAt": moment_text(now),
        "maxActApprox": detail.row.max_act,
        "hasVector": False,
        "vector": [],
        "topkCosSimIndices": [one.feature for one in detail.neighbours],
        "topkCosSimValues": [one.cosine for one in detail.neighbours],
        "neg_str": [token for token, _ in detail.suppressed],
        "neg_values": [value for _, value in detail.suppressed],
        "pos_str": [token for token, _ in detail.promoted],
        "pos_values": [value for _, value in detail.promoted],
        "frac_nonzero": detail.row.density,
        "freq_hist_data_bar_heights": list(detail.histogram),
        "freq_hist_data_bar_values": middles[: len(detail.histogram)],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "decoder_weights_dist": [],
    }


def _activation_rows(
    feature: int, bands: Mapping[int, Sequence[Example]], ids: DashboardIds, now: float
) -> Iterator[dict[str, Any]]:
    for band, examples in sorted(bands.items()):
        found = [one.activation for one in examples]
        limits = (min(found), max(found)) if band else (None, None)
        for one in examples:
            place = f"{ids.model_id}/{ids.source_id}/{feature}/{one.document}/{one.position}/{band}"
            strongest = max(range(len(one.acts)), key=one.acts.__getitem__)
            yield {
                "id": f"c{sha256(place.encode()).hexdigest()[:24]}",
                "tokens": one.tokens,
                "dataIndex": str(one.document),
                "index": str(feature),
                "layer": ids.source_id,
                "modelId": ids.model_id,
                "dataSource": one.label,
                "maxValue": one.acts[strongest],
                "maxValueTokenIndex": strongest,
                "minValue": min(one.acts),
                "values": one.acts,
                "dfaValues": [],
                "lossValues": [],
                "binMin": limits[0],
                "binMax": limits[1],
                "qualifyingTokenIndex": one.position - one.window_start if band else None,
                "creatorId": ids.author,
                "createdAt": moment_text(now),
            }


def _explanations(
    detail: FeatureDetail, ids: DashboardIds, proposed: bool, now: float
) -> list[dict[str, Any]]:
    named = (ids.model_id, ids.source_id, ids.author)
    said = [row for one in detail.concepts for row in explanation_rows(one, *named)]
    proposal = detail.proposal
    if not said and proposed and detail.explanation is not None:
        return [explained_row(detail.explanation, *named, now)]
    if not said and proposed and proposal is not None and proposal.name:
        said.append(proposal_row(proposal, *named, now))
    return said


def write_explanations(path: Path, concepts: Sequence[Concept], ids: DashboardIds) -> int:
    """Writes concepts as explanations to one file of JSON lines; `.gz` compresses it. Returns their
    number."""
    named = (ids.model_id, ids.source_id, ids.author)
    rows = [row for one in concepts for row in explanation_rows(one, *named)]
    data = json_lines(rows)
    write_bytes(path, packed(data) if path.name.lower().endswith(".gz") else data)
    return len(rows)


def export_concepts(
    workspace: Workspace,
    annotations: "Annotations",
    path: Path,
    sae_id: str | None = None,
    *,
    overwrite: bool = False,
    model_id: str | None = None,
    source_id: str | None = None,
    wanted: "Callable[[Concept], bool] | None" = None,
) -> int:
    """Writes concepts, only those that are `wanted`, to .json, .csv or, as explanations of one SAE,
    to .jsonl; returns their number. Raises UserError, also for a file that exists, unless
    `overwrite`. Of SAEs over several layers .json and .csv also have the features' `layer`."""
    from mi_crow.mechanistic.concepts.exchange.layers import layers_of_concepts

    if not overwrite and os.path.lexists(path):
        raise UserError(f"{str(path)!r} exists already", hint="choose another name")
    concepts = [one for one in annotations.concepts(sae_id) if wanted is None or wanted(one)]
    if not is_explanations(path) or sae_id is None:
        write_concepts(path, concepts, layers_of_concepts(workspace, concepts))
        return len(concepts)
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    usual = usual_ids(sae.model_id, sae.layer, sae_id)
    ids = replace(
        usual, model_id=model_id or usual.model_id, source_id=source_id or usual.source_id
    )
    return write_explanations(path, concepts, ids)
