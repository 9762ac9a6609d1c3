"""Names proposed for features, beside their index: `saes/<id>/names.parquet`. Torch-free.

A file that was made from another build of the index is as good as none.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.mechanistic.features.beside.explanations import (
    EXPLANATIONS_NAME,
    read_explanations,
    weights_of,
)
from mi_crow.mechanistic.features.records import Explanation, FeatureRow, Proposal
from mi_crow.store.atomic import whole_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

PROPOSALS_NAME = "names.parquet"
_FEW = 128  # lines: those of a screen
_OFTEN = 8  # times: then they are many
_COLUMNS = "feature, name, kind, score, chance, hits, false_alarms, firings, words, around"


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
        pq.write_table(pa.table(columns), temporary, row_group_size=4096)


def read_proposals(path: Path) -> Proposals:
    """The names of a file that `write_proposals` wrote."""
    import pyarrow.parquet as pq

    table = pq.read_table(path).select(list(Proposals.__dataclass_fields__))
    numbers = {field.name for field in table.schema if str(field.type) in ("float", "int32")}
    return Proposals(
        **{
            name: table[name].to_numpy() if name in numbers else table[name].to_pylist()
            for name in table.column_names
        }
    )


def identity(path: Path) -> tuple[int, int] | None:
    """Distinguishes a file from the one before; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


class Lines:
    """One text per feature, in one block of bytes: as 131,072 strings they would take four times
    the memory."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))

    @classmethod
    def read(cls, connection: "IndexConnection", path: Path, column: str) -> "Lines":
        # One text, cut here: as a column, every name would be a Python string for a moment.
        query = (
            f"SELECT string_agg(replace({column}, chr(10), ' ') || chr(10), '' ORDER BY feature) "
            "FROM read_parquet(?)"
        )
        return cls((connection.rows(query, [str(path)])[0][0] or "").encode())

    def folded(self) -> "Lines":
        return Lines(self._block.decode().casefold().encode())

    def having(self, text: str, holds: Callable[[str], bool]) -> np.ndarray:
        """The lines that contain a text, of those for which `holds` is true: int32, ascending."""
        wanted, at, found = text.encode(), 0, []
        while (at := self._block.find(wanted, at)) >= 0:
            place = int(np.searchsorted(self._ends, at))
            if holds(self[place]):
                found.append(place)
            at = int(self._ends[place]) + 1
        return np.array(found, dtype=np.int32)

    def __getitem__(self, place: int) -> str:
        start = int(self._ends[place - 1]) + 1 if place else 0
        return self._block[start : int(self._ends[place])].decode()


class ProposalReader:
    """Reads the names of one index."""

    def __init__(self, connection: "IndexConnection", index: Path) -> None:
        # The connection keeps its reader: a circle would hold the index's file until it is found.
        self._connection = weakref.proxy(connection)
        self._path = index.with_name(PROPOSALS_NAME)
        self._explanations = index.with_name(EXPLANATIONS_NAME)
        self._identity = self._now()
        self._lines: dict[str, Lines] = {}
        self._begun: dict[str, int] = {}  # how often some lines of a column were read
        self.damaged: bool = False  # the file of names, as `exist` found

    def changed_on_disk(self) -> bool:
        """Whether names or explanations were written since the index was opened."""
        return self._now() != self._identity

    def _now(self) -> tuple[tuple[int, int] | None, ...]:
        return identity(self._path), identity(self._explanations)

    @cached_property
    def explanations(self) -> dict[int, Explanation]:
        """What a chat model says of features. It comes before the names proposed without one."""
        if self._identity[1] is None:
            return {}
        meta = dict(self._connection.rows("SELECT key, value FROM idx.meta"))
        return read_explanations(self._connection, self._explanations, weights_of(meta))

    @cached_property
    def exist(self) -> bool:
        """Whether there are names made from this very index. A damaged file counts as none."""
        if self._identity[0] is None:
            return False
        try:
            rows = self._connection.rows(
                "SELECT count(*), min(index_built_at) = max(value::DOUBLE) "
                "FROM read_parquet(?), idx.meta WHERE key = 'built_at'",
                [str(self._path)],
            )
            features = self._connection.rows("SELECT count(*) FROM idx.features")
        except MiCrowError:
            self.damaged = True
            return False
        return rows[0] == (features[0][0], True)

    def of(self, feature: int) -> Proposal | None:
        """The name of a feature with all that it rests on; None without names."""
        if not self.exist:
            return None
        rows = self._connection.rows(
            f"SELECT {_COLUMNS} FROM read_parquet(?) WHERE feature = ?",
            [str(self._path), feature],
        )
        return _proposal(rows[0]) if rows else None

    def texts(self, column: str, features: Sequence[int]) -> list[str]:
        """The `name` or `kind` of some features; empty texts without names, and as the kind of a
        feature that a chat model explains: kinds are of names proposed without one."""
        column = _checked(column)
        texts, said = self._texts(column, features), self.explanations
        if not said:
            return texts
        return [
            (said[one].text if column == "name" else "") if one in said else text
            for one, text in zip(features, texts, strict=True)
        ]

    def _texts(self, column: str, features: Sequence[int]) -> list[str]:
        if not self.exist:
            return [""] * len(features)
        asked = self._begun.get(column, 0)
        if column not in self._lines and len(features) <= _FEW and asked < _OFTEN:
            self._begun[column] = asked + 1
            return self._some(column, features)
        lines = self._lines_of(column)
        return [lines[feature] for feature in features]

    def _some(self, column: str, features: Sequence[int]) -> list[str]:
        """The first screenful, before the others are read: a tenth of their time."""
        numbers = ", ".join(str(int(feature)) for feature in features)
        query = (
            f"SELECT feature, replace({column}, chr(10), ' ') FROM read_parquet(?) "
            f"WHERE feature IN ({numbers or 'NULL'})"
        )
        found = dict(self._connection.rows(query, [str(self._path)]))
        return [found.get(int(feature), "") for feature in features]

    def read_begun(self) -> None:
        """Reads all of what was asked for in part: whoever goes on asking does not wait."""
        for column in tuple(self._begun):
            with suppress(MiCrowError):  # whoever asks for it says why
                self._lines_of(column)

    def _lines_of(self, column: str) -> Lines:
        if column not in self._lines:
            self._lines[column] = Lines.read(self._connection, self._path, column)
            self._begun.pop(column, None)
        return self._lines[column]

    def added_to(self, rows: list[FeatureRow]) -> list[FeatureRow]:
        """The rows, those without a name with the one that was proposed; of names that were
        accepted, that they were."""
        if not self.exist and not self.explanations:
            return rows
        names = self.texts("name", [row.feature for row in rows])
        return [self._naming(row, name) for row, name in zip(rows, names, strict=True)]

    def _naming(self, row: FeatureRow, name: str) -> FeatureRow:
        if row.concept and row.concept != name:
            return row
        row = replace(row, accepted=True) if row.concept else replace(row, proposed=name)
        said = self.explanations.get(row.feature)
        if said is None:
            return row
        return replace(row, explainer=said.explainer, detection=said.detection)

    def explained(self, score: str, n_features: int) -> np.ndarray:
        """A score, of ASKED_FOR, of every feature's explanation by a chat model: float64
        [n_features], NaN where there is none."""
        values = np.full(n_features, np.nan)
        for one in self.explanations.values():
            if one.feature < n_features and (value := getattr(one, score)) is not None:
                values[one.feature] = value
        return values

    def scores(self, n_features: int) -> np.ndarray:
        """The score of every feature's name: float64 [n_features], NaN where there is none, and
        where a chat model's explanation, which has others, stands in its place."""
        values = np.full(n_features, np.nan)
        if self.exist:
            found = self._connection.columns(
                "SELECT feature, coalesce(score, 'nan'::FLOAT) AS score FROM read_parquet(?)",
                [str(self._path)],
            )
            values[found["feature"]] = found["score"]
            values[[one for one in self.explanations if one < n_features]] = np.nan
        return values

    def folded_names(self) -> Lines:
        """All names, case-folded: a line a feature; no lines without names."""
        return self._lines_of("name").folded() if self.exist else Lines(b"")

    def containing(self, text: str, column: str, n_features: int) -> np.ndarray:
        """The features whose `column`, name or kind, contains `text`: bool [n_features].

        Raises NotFoundError without names: a condition on them would otherwise match nothing.
        """
        if not self.exist and not self.explanations:
            sae = self._connection.sae_id
            raise NotFoundError(
                f"the features of {sae!r} have no proposed names",
                hint=f"mi-crow explain --sae {sae}",
            )
        mask = np.zeros(n_features, dtype=bool)
        if self.exist:
            found = self._connection.columns(
                f"SELECT feature FROM read_parquet(?) WHERE contains(lower({_checked(column)}), ?)",
                [str(self._path), text.lower()],
            )["feature"]
            mask[found] = True
        for one in self.explanations.values():
            mask[one.feature] = column == "name" and text.lower() in one.text.lower()
        return mask


def _checked(column: str) -> str:
    if column not in ("name", "kind"):
        raise ValueError(f"{column!r} is not a text of a proposed name")
    return column


def _proposal(row: Sequence) -> Proposal:
    feature, name, kind, *figures, firings, words, around = row
    known = [None if one is None or one != one else float(one) for one in figures]
    score, chance, hits, false_alarms = known
    return Proposal(
        feature, name, kind, score, chance, hits, false_alarms, firings, tuple(words), tuple(around)
    )
