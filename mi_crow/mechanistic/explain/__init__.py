"""Names for features without a language model: evidence, a rule, and how well it holds. Torch-free.

`words` reads the indexed documents as words, `evidence` counts what stands out where a feature
fires, `rules` picks the rule that tells its firings from other tokens, `naming` puts it in words,
and `job` does all features of an index.
"""
