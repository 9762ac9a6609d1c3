"""Capture: documents to tokens and windows, through the model, and to a run on the disk."""
