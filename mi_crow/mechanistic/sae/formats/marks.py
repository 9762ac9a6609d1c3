"""What the files of each format are called, by which an SAE is recognised. Torch-free."""

from typing import NamedTuple

from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME


class Marks(NamedTuple):
    """The names of one format's files, relative to the SAE's folder."""

    format: str
    config: str
    weights: str


SAELENS = Marks("SAELens", CONFIG_NAME, WEIGHTS_NAME)
SPARSIFY = Marks("sparsify", "cfg.json", "sae.safetensors")
GEMMA_SCOPE = Marks("Gemma Scope", "", "params.npz")
DICTIONARY_LEARNING = Marks("dictionary_learning", "config.json", "ae.pt")
LLAMA_SCOPE = Marks("Llama Scope", "hyperparams.json", "checkpoints/final.safetensors")
OPENAI = Marks("OpenAI sparse_autoencoder", "", "")  # any .pt file

SPARSIFY_RUN = "config.json"  # of a whole run of sparsify, above the hook points
EXPORTED = ("saelens", "sparsify")  # the formats that we write, by the names in settings
