"""One folder a screen, in the order of the digits that open them."""
