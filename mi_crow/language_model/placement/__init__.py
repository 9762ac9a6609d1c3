"""Where a model's weights go: how much memory they take, and on which devices they are."""
