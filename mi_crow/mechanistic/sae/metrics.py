"""The metrics of a training run: one row a logged step, kept as Parquet."""

from pathlib import Path
from typing import Any

from mi_crow.store.atomic import whole_file

Row = dict[str, float | int | None]

_INTEGERS = ("step", "tokens", "dead_features")
_FLOATS = ("loss", "fvu", "r2", "l0", "dead_share", "lr", "tokens_s", "seconds", "heldout_fvu")

# What the published training guides call the same readings.
_HISTORY = ("loss", "fvu", "r2", "l0", "dead_features", "step", "tokens", "lr", "heldout_fvu")


class MetricsTable:
    """Rows in step order; `heldout_fvu` is None where it was not measured."""

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = rows or []

    def history(self) -> dict[str, list[Any]]:
        """Column lists, as `SaeTrainer.train` gives them."""
        return {name: [row[name] for row in self.rows] for name in _HISTORY}

    def write(self, path: Path) -> None:
        """Writes all rows, whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        schema = pyarrow.schema(
            [(name, pyarrow.int64()) for name in _INTEGERS]
            + [(name, pyarrow.float64()) for name in _FLOATS]
        )
        with whole_file(path) as temporary:
            parquet.write_table(pyarrow.Table.from_pylist(self.rows, schema=schema), temporary)

    @classmethod
    def read(cls, path: Path, up_to_step: int) -> "MetricsTable":
        """The rows in `path` that a checkpoint at `up_to_step` had already seen."""
        from pyarrow import parquet

        if not path.is_file():
            return cls()
        rows = parquet.read_table(path).to_pylist()
        return cls([row for row in rows if row["step"] <= up_to_step])
