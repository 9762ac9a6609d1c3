"""DuckDB's C++ extension without the Python layer around it, which builds relations and expressions
that nothing here uses: importing those takes 0.1 s and 15 MB of the app's process.
"""

from types import ModuleType


def duckdb_core() -> ModuleType:
    """The module with `connect` and DuckDB's errors, which are the same objects as those of
    `duckdb`. Imported on first use."""
    try:
        import _duckdb
    except ImportError:  # a version that keeps it elsewhere
        import duckdb

        return duckdb
    return _duckdb
