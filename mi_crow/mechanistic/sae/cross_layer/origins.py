"""Which of two models a crosscoder's latents are of, as a table beside it says. Torch-free."""

FILE = "latent_scaling.parquet"
SHARED, UNCLEAR = "shared", "unclear"
ORIGINS = (SHARED, "base", "tuned", UNCLEAR)
IN_WORDS = {
    SHARED: "in both models",
    "base": "only in the base model",
    "tuned": "only in the tuned model",
    UNCLEAR: "stronger in one model than in the other",
}
