"""Features as a file: a page to read, or JSON. Torch-free."""
