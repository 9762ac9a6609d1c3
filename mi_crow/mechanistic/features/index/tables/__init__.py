"""The tables of the index, one kind per file."""
