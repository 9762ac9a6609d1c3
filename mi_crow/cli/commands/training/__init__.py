"""What belongs to `mi-crow train` besides the training."""
