"""The demo: the main job end to end on the sample model and corpus."""
