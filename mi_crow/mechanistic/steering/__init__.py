"""Changing what a model does through its features: interventions, generation, measured effects."""
