"""Named directions in a model's activations."""
