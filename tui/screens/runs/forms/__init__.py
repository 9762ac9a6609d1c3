"""The forms that start jobs: one module a kind, and what they share."""
