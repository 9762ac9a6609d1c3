"""Where a model's weights go and how much memory is left for a batch."""
