"""What generating does at each token: the passes of the model, limits on what it may write."""
