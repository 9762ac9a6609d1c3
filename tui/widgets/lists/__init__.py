"""Virtual lists and tables: what is not on the screen costs nothing."""
