"""What the files of each format are called, by which an SAE is recognised. Torch-free."""

from typing import NamedTuple

from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME


class Marks(NamedTuple):
    """The names of one format's files, relative to the SAE's folder."""

    format: str
    config: str
    weights: str


SAELENS = Marks("SAELens", CONFIG_NAME, WEIGHTS_NAME)
SAELENS_KEYS = frozenset(["d_in", "d_sae"])  # of its configuration, since its first version
SPARSIFY = Marks("sparsify", "cfg.json", "sae.safetensors")
GEMMA_SCOPE = Marks("Gemma Scope", "", "params.npz")
DICTIONARY_LEARNING = Marks("dictionary_learning", "config.json", "ae.pt")
LLAMA_SCOPE = Marks("Llama Scope", "hyperparams.json", "checkpoints/final.safetensors")
GEMMA_SCOPE_2 = Marks("Gemma Scope 2", "config.json", "params.safetensors")
LLAMASCOPIUM = Marks("Llamascopium", "config.json", WEIGHTS_NAME)  # also Llama-Scope-R1-Distill
CIRCUIT_TRACER = Marks("circuit-tracer", "config.yaml", "layer_{}.safetensors")
GEMMA_SCOPE_2_SET = Marks(
    "Gemma Scope 2 (cross-layer)", "config.json", "params_layer_{}.safetensors"
)
CIRCUIT_TRACER_CLT = Marks("circuit-tracer (CLT)", "config.yaml", "W_enc_{}.safetensors")
OPENSAE = Marks("OpenSAE", "config.json", "model.safetensors")  # as models are called, too
# In .pt and .pth files, which are told apart by what they hold.
KISSANE = Marks("Kissane et al. (attention)", "_cfg.json", "")  # the ending of a second file
APOLLO = Marks("Apollo e2e_sae", "final_config.yaml", "samples_{}.pt")
QWEN_SCOPE = Marks("Qwen-Scope", "config.json", "layer{}.sae.pt")
TORCH = Marks("a file of torch", "config.json", "")  # until it has been read
TORCH_ENDINGS = (".pt", ".pth")
SAFETENSORS = ".safetensors"

SPARSIFY_RUN = "config.json"  # of a whole run of sparsify, above the hook points
DICTIONARY_WEIGHTS = "ae.safetensors"  # the state dict of an `ae.pt`, which is a pickle
# The formats that we write, by the names in settings.
EXPORTED = ("saelens", "sparsify", "dictionary_learning", "circuit-tracer")
