"""Forms: fields that say where their defaults come from, completions, sections, one sentence."""
