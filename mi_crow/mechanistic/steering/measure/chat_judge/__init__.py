"""A chat model as judge: asking an endpoint, and reading its ratings."""
