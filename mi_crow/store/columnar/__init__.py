"""Files of columns read by DuckDB in little memory: for programs that stay open."""
