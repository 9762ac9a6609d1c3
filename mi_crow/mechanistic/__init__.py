"""Mechanistic interpretability: SAEs, their features, the concepts people name, and steering."""
