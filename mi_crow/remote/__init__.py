"""Talking to an open app of the same user: where its socket is, what is said there. Torch-free."""
