"""SAEs on disk: read from any format that is known, written in two.

`load.py` finds the format and builds the SAE; one file a format says how it is read.
"""
