"""Capture: documents to windows, tokens, forward passes and the run on the disk."""
