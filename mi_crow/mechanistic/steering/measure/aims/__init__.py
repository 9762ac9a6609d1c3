"""What a search steers to: the allies, the rivals and the direction of a feature."""
