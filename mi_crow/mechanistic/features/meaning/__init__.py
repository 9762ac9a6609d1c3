"""Features found by what they mean: names, promoted tokens and texts, weighed by BM25."""
