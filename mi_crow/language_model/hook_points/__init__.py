"""Hook points: what they are called, how they are found by measuring, and how they are read and
changed."""
