"""One folder per screen, in the order of the digits that open them."""
