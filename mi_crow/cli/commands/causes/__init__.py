"""Why a model says what it says: attribution, the logit lens, patching."""
