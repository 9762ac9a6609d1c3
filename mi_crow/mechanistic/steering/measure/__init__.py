"""Measuring steering: what a stack does to text, what it costs, and which of many does best."""
