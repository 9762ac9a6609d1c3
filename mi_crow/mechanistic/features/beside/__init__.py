"""What is in files of its own beside an index, which may come later than it."""
