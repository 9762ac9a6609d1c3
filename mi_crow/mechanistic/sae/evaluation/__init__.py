"""Evaluation: loss recovered, probes, and comparing SAEs."""
