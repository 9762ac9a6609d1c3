"""What features mean: names without a language model, and features that tell texts apart.

`words` reads the indexed documents as words, `evidence` counts what stands out where a feature
fires, `rules` picks the rule that tells its firings from other tokens, `naming` puts it in words,
and `job` does all features of an index.
"""
