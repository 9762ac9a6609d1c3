"""What the index says of features: one kind of table a file."""
