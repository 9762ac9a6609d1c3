"""Vectors in the app: their list and what is known of each, over Steer, Control and Inspect."""
