"""The Control screen."""
