"""Activation runs on the disk: manifest, parts, and reading them back."""
