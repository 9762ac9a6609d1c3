"""What work on SAEs will take, before it starts."""
