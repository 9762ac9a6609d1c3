"""Dictionaries of concepts in and out: files, Neuronpedia, the hub."""
