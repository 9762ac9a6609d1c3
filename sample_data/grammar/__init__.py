"""The grammar that the corpus and the training passages are drawn from."""
