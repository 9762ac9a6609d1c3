"""The map of features: what is in view, its dots, its colours, and the widget that draws them."""
