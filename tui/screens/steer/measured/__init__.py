"""Measured steering on the Steer screen: sweeps, the search for a setting, what they found."""
