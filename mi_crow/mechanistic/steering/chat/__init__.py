"""Conversations under interventions: what each side has heard so far, and its next answer."""
