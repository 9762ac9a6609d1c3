"""SAEs over several layers at once: cross-layer transcoders and crosscoders."""
