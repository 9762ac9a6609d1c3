"""The model session: one process that keeps a model and an SAE for the interactive panes."""
