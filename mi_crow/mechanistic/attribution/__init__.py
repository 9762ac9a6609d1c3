"""Why a model said what it said: causes among features, checked by ablating them."""
