"""The Steer screen."""
