"""The index job, which writes `features.duckdb`; the modules beside this folder read it."""
