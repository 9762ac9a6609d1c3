"""Rules: one architecture a file, what each makes of pre-activations, and their losses."""
