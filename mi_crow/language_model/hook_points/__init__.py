"""Hook points: their names, finding them by measuring, and reading and changing them."""
