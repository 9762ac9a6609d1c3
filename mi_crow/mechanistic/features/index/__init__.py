"""The index job: from codes to features.duckdb. Everything here writes; reading is next door."""
