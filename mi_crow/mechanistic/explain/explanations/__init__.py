"""Explanations of features by a chat model, and how well they predict where the features fire."""
