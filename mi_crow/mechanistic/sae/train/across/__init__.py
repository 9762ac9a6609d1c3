"""Training over several layers at once: crosscoders, cross-layer transcoders, two models."""
