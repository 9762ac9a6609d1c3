"""Published SAEs, from a table that comes with the package: what to import, and how large it is."""
