"""The texts of a run that are most along a vector: what the index has of a feature."""

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.fitting import check_captured_with
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.mechanistic.vectors.activations import Report
from mi_crow.mechanistic.vectors.stored import SteeringVector
from mi_crow.mechanistic.vectors.texts import run_manifest
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.store.runs.parts import RunPart

_ROWS = 1 << 14
_AROUND = 12  # tokens shown on either side of the strongest


@dataclass(frozen=True)
class TopText(JsonRecord):
    """One window of a document where the projection is great."""

    document: int
    window: int
    label: str | None
    projection: float  # in multiples of the vector's length
    position: int  # of the strongest token in `token_ids`
    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class ProjectionFigures:
    """A vector on the tokens of a run."""

    tokens: int
    mean: float
    std: float
    max: float
    median_norm: float
    top: list[TopText]
    label_means: dict[str, float]  # of each label's windows: the mean of their greatest projections


def top_texts(
    workspace: Workspace,
    vector: SteeringVector,
    run_id: str,
    layer: str | None = None,
    count: int = 20,
    report: Report | None = None,
) -> ProjectionFigures:
    """The `count` windows of a run with the greatest projection x.v / |v|^2 of a token, one a
    document, and figures over all its tokens; massive tokens are left out.

    Raises UserError for a layer that the vector or the run lacks, for another width, and for a run
    of another model.
    """
    manifest = run_manifest(workspace, run_id)
    point = _point_of(vector, layer)
    spec = stored_layer(manifest, point)
    reader = RunReader(workspace.run_dir(run_id), spec.name)
    direction = vector.directions[point]
    if reader.width != len(direction):
        raise UserError(
            f"vector {vector.name!r} has width {len(direction)}, layer {spec.name!r} of run "
            f"{run_id!r} has {reader.width}",
            hint="it belongs to another model or layer",
        )
    hashed = vector.made.get("tokenizer_hash")
    if isinstance(hashed, str):
        hint = "take a run of the vector's model"
        check_captured_with(str(vector.made.get("model_id")), hashed, manifest, hint)
    unit = direction / direction.square().sum()
    median = reader.median_norm()
    limit = vector.figure(point, "outlier_norm") or 10 * median
    found = _Best(count)
    done = 0
    for part in reader.parts():
        found.add(part, unit, limit)
        done += len(part)
        if report is not None:
            report(done, reader.n_tokens)
    return found.figures(median)


def _point_of(vector: SteeringVector, layer: str | None) -> str:
    points = list(vector.directions)
    if layer is None and len(points) == 1:
        return points[0]
    if layer not in points:
        raise UserError(
            f"vector {vector.name!r} is for {', '.join(points)}", hint="name one with --layer"
        )
    return layer


class _Best:
    """The greatest projections so far."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, TopText]] = []
        self._of: dict[int, float] = {}  # the projection that counts for a document
        self._sum, self._squares, self._tokens, self._max = 0.0, 0.0, 0, float("-inf")
        self._labels: dict[str, list[float]] = {}

    def add(self, part: "RunPart", unit: Tensor, limit: float) -> None:
        projections = torch.empty(len(part))
        for start in range(0, len(part), _ROWS):
            stretch = slice(start, min(start + _ROWS, len(part)))
            projections[stretch] = part.take(stretch).float() @ unit
        ordinary = part.norms <= limit
        kept = projections[ordinary].double()
        if len(kept):
            self._sum += float(kept.sum())
            self._squares += float(kept.square().sum())
            self._tokens += len(kept)
            self._max = max(self._max, float(kept.max()))
        projections = projections.masked_fill(~ordinary, float("-inf"))
        table = part.columns("document", "window", "text", "label", "token_ids")
        rows = part.table_row
        best = torch.full((table.num_rows,), float("-inf"))
        best.scatter_reduce_(0, rows, projections, "amax")
        for number, label in enumerate(table["label"].to_pylist()):
            if label and best[number] > float("-inf"):
                self._labels.setdefault(label, []).append(float(best[number]))
        for number in best.topk(min(4 * self._count, len(best))).indices.tolist():
            value = float(best[number])
            if value == float("-inf"):
                continue
            row = table.slice(number, 1).to_pylist()[0]
            if value <= self._of.get(row["document"], float("-inf")):
                continue
            here = (rows == number) & (projections == best[number])
            position = int(part.row_position[here.nonzero()[0, 0]])
            self._keep(
                value,
                TopText(
                    row["document"],
                    row["window"],
                    row["label"],
                    value,
                    position,
                    row["text"],
                    row["token_ids"],
                ),
            )

    def _keep(self, value: float, one: TopText) -> None:
        if one.document in self._of:
            self._heap = [held for held in self._heap if held[2].document != one.document]
            heapq.heapify(self._heap)
        self._of[one.document] = value
        heapq.heappush(self._heap, (value, -one.document, one))
        if len(self._heap) > self._count:
            heapq.heappop(self._heap)

    def figures(self, median_norm: float) -> ProjectionFigures:
        if not self._tokens:
            raise UserError("the run has no ordinary tokens")
        mean = self._sum / self._tokens
        variance = max(self._squares / self._tokens - mean**2, 0.0)
        return ProjectionFigures(
            self._tokens,
            mean,
            variance**0.5,
            self._max,
            median_norm,
            [one for _, _, one in sorted(self._heap, reverse=True)],
            {label: sum(one) / len(one) for label, one in sorted(self._labels.items())},
        )
