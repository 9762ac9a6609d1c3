"""Training an SAE further on what its model predicts with it."""
