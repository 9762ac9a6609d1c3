"""The Concepts screen."""
