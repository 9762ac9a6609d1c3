"""The layers that features are of: read from an index, and as a condition of the query language."""
