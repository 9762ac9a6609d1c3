"""Tables, distributions and grids of charts that fill large panes of Runs; pure."""
