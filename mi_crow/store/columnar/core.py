"""DuckDB's C++ extension without the Python layer around it, which builds relations and expressions
that nothing here uses: importing those takes 0.1 s and 15 MB of the app's process.
"""

from tempfile import gettempdir
from types import ModuleType

from mi_crow.errors import MiCrowError
from mi_crow.store.runtime_folder import runtime_folder


def duckdb_core() -> ModuleType:
    """The module with `connect` and DuckDB's errors, which are the same objects as those of
    `duckdb`. Imported on first use."""
    try:
        import _duckdb
    except ImportError:  # a version that keeps it elsewhere
        import duckdb

        return duckdb
    return _duckdb


def spill_folder() -> str:
    """Where a database in memory puts what does not fit: DuckDB's own choice is `.tmp` in the
    folder that the program was started in."""
    try:
        return str(runtime_folder() / "spilled")
    except MiCrowError:
        return gettempdir()
