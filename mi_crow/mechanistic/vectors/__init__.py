"""Directions in a model's activations with a name: made, stored, exchanged, taken apart.

Names load on first use, so that listing vectors costs no torch.
"""
