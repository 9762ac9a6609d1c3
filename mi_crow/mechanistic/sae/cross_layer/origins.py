"""Which of two models a crosscoder's latents are of, as a table beside it says. Torch-free."""

FILE = "latent_scaling.parquet"
SHARED, UNCLEAR = "shared", "unclear"
ORIGINS = (SHARED, "base", "tuned", UNCLEAR)
IN_WORDS = {
    SHARED: "in both models",
    "base": "in the base model alone",
    "tuned": "in the tuned model alone",
    UNCLEAR: "stronger in one model than in the other",
}
