"""The open app as scripts, a second pane or an assistant drive it: a socket and what it answers."""
