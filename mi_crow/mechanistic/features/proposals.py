"""Names proposed for features, beside their index: `saes/<id>/names.parquet`. Torch-free.

A file that was made from another build of the index is as good as none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.store.atomic import whole_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

PROPOSALS_NAME = "names.parquet"
DENSE = 0.2  # a feature that fires on more of the tokens means no one thing
UNCLEAR = "unclear"
KINDS = {
    "token": "fires on certain words",
    "phrase": "fires on a word after a certain one",
    "context": "fires beside certain words",
    "topic": "fires in texts about something",
    "prediction": "fires before tokens that it promotes",
    "position": "fires at a place in the text",
    "punctuation": "fires on marks",
    "dense": f"fires on more than {DENSE:.0%} of the tokens",
    "dead": "never fires",
    UNCLEAR: "nothing stands out",
}
_COLUMNS = "feature, name, kind, score, chance, hits, false_alarms, firings, words, around"


@dataclass(frozen=True)
class Proposal:
    """One proposed name, with what it rests on."""

    feature: int
    name: str  # empty where nothing stands out
    kind: str  # of KINDS
    score: float | None  # AUROC of the name's rule on documents that naming did not see
    chance: float | None  # the same for the name of another feature
    hits: float | None  # share of the feature's firings on which the rule holds
    false_alarms: float | None  # share of other tokens on which it holds
    firings: int  # on which it was scored
    words: tuple[str, ...]  # on which it fires most beyond chance
    around: tuple[str, ...]  # that stand around its firings beyond chance


@dataclass(frozen=True)
class Proposals:
    """Many of them by column; the numbers are arrays, NaN for what could not be measured."""

    feature: np.ndarray  # int32
    name: Sequence[str]
    kind: Sequence[str]
    score: np.ndarray  # float32
    chance: np.ndarray  # float32
    hits: np.ndarray  # float32
    false_alarms: np.ndarray  # float32
    firings: np.ndarray  # int32
    words: Sequence[Sequence[str]]
    around: Sequence[Sequence[str]]

    @classmethod
    def joined(cls, parts: Sequence["Proposals"]) -> "Proposals":
        """The parts one after the other."""
        columns = {}
        for name in cls.__dataclass_fields__:
            values = [getattr(part, name) for part in parts]
            arrays = isinstance(values[0], np.ndarray)
            columns[name] = (
                np.concatenate(values) if arrays else [x for some in values for x in some]
            )
        return cls(**columns)


def proposals_path(workspace: Workspace, sae_id: str) -> Path:
    """Where the proposed names of an SAE are."""
    return workspace.index_path(sae_id).with_name(PROPOSALS_NAME)


def write_proposals(path: Path, found: Proposals, built_at: float) -> None:
    """Writes names made from the index that was built at `built_at`; the file appears whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(found, name)) for name in found.__dataclass_fields__}
    for name in ("words", "around"):
        columns[name] = pa.array(getattr(found, name), type=pa.list_(pa.string()))
    columns["index_built_at"] = pa.array(np.full(len(found.feature), built_at))
    with whole_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary, row_group_size=16_384)


class ProposalReader:
    """Reads the names of one index; nothing is held but the column that orders are made by."""

    def __init__(self, connection: "IndexConnection", index: Path, built_at: float) -> None:
        self._connection = connection
        self._path = index.with_name(PROPOSALS_NAME)
        self._built_at = built_at

    def exists(self) -> bool:
        """Whether there are names made from this very index. A damaged file counts as none."""
        if not self._path.is_file():
            return False
        try:
            rows = self._connection.rows(
                "SELECT index_built_at FROM read_parquet(?) LIMIT 1", [str(self._path)]
            )
        except MiCrowError:
            return False
        return bool(rows) and rows[0][0] == self._built_at

    def of(self, features: Sequence[int]) -> dict[int, Proposal]:
        """The names of some features; empty without names."""
        if not len(features) or not self.exists():
            return {}
        marks = ", ".join("?" * len(features))
        rows = self._connection.rows(
            f"SELECT {_COLUMNS} FROM read_parquet(?) WHERE feature IN ({marks})",
            [str(self._path), *map(int, features)],
        )
        return {row[0]: _proposal(row) for row in rows}

    def scores(self, n_features: int) -> np.ndarray:
        """The score of every feature's name: float64 [n_features], NaN where there is none."""
        values = np.full(n_features, np.nan)
        if self.exists():
            found = self._connection.columns(
                "SELECT feature, coalesce(score, 'nan'::FLOAT) AS score FROM read_parquet(?)",
                [str(self._path)],
            )
            values[found["feature"]] = found["score"]
        return values

    def containing(self, text: str, column: str, n_features: int) -> np.ndarray:
        """The features whose `column`, name or kind, contains `text`: bool [n_features].

        Raises NotFoundError without names: a condition on them would otherwise match nothing.
        """
        if not self.exists():
            sae = self._connection.sae_id
            raise NotFoundError(
                f"the features of {sae!r} have no proposed names",
                hint=f"mi-crow explain --sae {sae}",
            )
        found = self._connection.columns(
            f"SELECT feature FROM read_parquet(?) WHERE contains(lower({column}), ?)",
            [str(self._path), text.lower()],
        )["feature"]
        mask = np.zeros(n_features, dtype=bool)
        mask[found] = True
        return mask


def _proposal(row: Sequence) -> Proposal:
    feature, name, kind, *figures, firings, words, around = row
    known = [None if one is None or one != one else float(one) for one in figures]
    score, chance, hits, false_alarms = known
    return Proposal(
        feature, name, kind, score, chance, hits, false_alarms, firings, tuple(words), tuple(around)
    )
