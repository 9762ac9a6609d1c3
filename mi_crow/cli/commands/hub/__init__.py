"""Commands about what is published on the Hugging Face hub."""
