"""The metrics of a training: one row per logged step, kept as Parquet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.store.atomic import whole_file
from mi_crow.store.columnar.parquet import parquet_look

Row = dict[str, float | int | None]

_INTEGERS = ("step", "tokens", "dead_features")

# Columns of every row that `SaeTrainer.train` returns; the first names are those of the published
# training guides.
_HISTORY = ("loss", "r2", "l0", "dead_features", "fvu", "step", "tokens", "lr", "heldout_fvu")


class MetricsTable:
    """Rows in step order.

    loss, and its parts as `loss_<name>`; fvu and r2 of the step's batch; l0; dead_features and
    dead_share (latents silent for the plan's `dead_tokens`); dense_share (latents that fired on
    more than a tenth of the tokens since the previous row); lr; grad_norm; sparsity (the
    coefficient); tokens, tokens_s, seconds; heldout_fvu and heldout_fvu_all (with outliers), None
    where not measured; and the bytes of `memory_readings`, which older files lack.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = rows or []

    def history(self) -> dict[str, list[Any]]:
        """Column lists, as `SaeTrainer.train` returns them."""
        # Rows restored after damage lack some columns.
        return {name: [row.get(name) for row in self.rows] for name in _HISTORY}

    def write(self, path: Path) -> None:
        """Writes all rows, whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        # A loss part may first appear in a later row: AuxK begins with the first dead latent.
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        schema = pyarrow.schema(
            [(n, pyarrow.int64() if n in _INTEGERS else pyarrow.float64()) for n in names]
        )
        with whole_file(path) as temporary:
            table = pyarrow.Table.from_pylist(self.rows, schema=schema)
            parquet.write_table(table, temporary, write_page_checksum=True)

    @classmethod
    def read(
        cls, path: Path, up_to_step: int, tell: Callable[[str], None] | None = None
    ) -> "MetricsTable":
        """The rows in `path` up to a checkpoint's step. A damaged file is reported to `tell`
        and does not stop the training: the table is empty then."""
        if not path.is_file():
            return cls()
        try:
            rows = read_rows(path)
        except CorruptDataError as error:
            if tell is not None:
                tell(
                    f"{error}: its metrics before step {up_to_step:,} are lost, training continues"
                )
            return cls()
        return cls([row for row in rows if (row["step"] or 0) <= up_to_step])


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of metrics. Raises CorruptDataError for a damaged one, MachineError where
    the system refuses to read it."""
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path, page_checksum_verification=True).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is damaged ({words[0]})"
        ) from error
    return _with_steps(path, rows)


def glance_at_rows(path: Path) -> list[Row]:
    """The same rows for a chart, without pyarrow, and without the checksum. Raises what
    `read_rows` does."""
    with parquet_look() as look:
        return _with_steps(path, look.ask(path, "* EXCLUDE file_row_number"))


def _with_steps(path: Path, rows: list[Row]) -> list[Row]:
    if any(not isinstance(row.get("step"), int) for row in rows):
        raise CorruptDataError(f"{path} is damaged (rows without a step)")
    return rows
