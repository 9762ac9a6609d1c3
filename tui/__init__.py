"""The terminal app: screens and widgets, nothing else. It never imports torch or transformers."""
