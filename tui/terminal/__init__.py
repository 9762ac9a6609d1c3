"""The app as a program on a terminal: what is sent there, and how it is left."""
