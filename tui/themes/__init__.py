"""The colours of the app: its themes, and what makes them readable."""
