"""What publishers' pages, configurations and lists of files say that SAELens' registry does not:
sizes, licences, the k of TopK, and SAEs over several layers, which it cannot read.

Only what such a page or file was seen to say is here: the folders of Gemma Scope 2's cross-layer
SAEs, for one, are those that were seen used, and there are more.
"""

from dataclasses import dataclass

FP32, BF16 = 4, 2  # bytes of a stored number

# Width of the residual stream, and of the heads side by side where SAEs read those.
WIDTHS = {
    "google/gemma-2b": (2048, 2048),
    "google/gemma-2b-it": (2048, 2048),
    "google/gemma-2-2b": (2304, 2048),
    "google/gemma-2-9b": (3584, 4096),
    "google/gemma-2-9b-it": (3584, 4096),
    "google/gemma-2-27b": (4608, 4096),
    "google/gemma-3-270m": (640, 1024),
    "google/gemma-3-270m-it": (640, 1024),
    "google/gemma-3-1b-pt": (1152, 1024),
    "google/gemma-3-1b-it": (1152, 1024),
    "google/gemma-3-4b-pt": (2560, 2048),
    "google/gemma-3-4b-it": (2560, 2048),
    "google/gemma-3-12b-pt": (3840, 4096),
    "google/gemma-3-12b-it": (3840, 4096),
    "google/gemma-3-27b-pt": (5376, 4096),
    "google/gemma-3-27b-it": (5376, 4096),
    "openai-community/gpt2": (768, 768),
    "EleutherAI/pythia-70m-deduped": (512, 512),
    "mistralai/Mistral-7B-v0.1": (4096, 4096),
    "meta-llama/Llama-3.1-8B": (4096, 4096),
    "meta-llama/Llama-3.1-8B-Instruct": (4096, 4096),
    "meta-llama/Llama-3.2-1B": (2048, 2048),
    "meta-llama/Meta-Llama-3-8B-Instruct": (4096, 4096),
    "meta-llama/Llama-3.3-70B-Instruct": (8192, 8192),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (4096, 4096),
    "Qwen/Qwen3-0.6B": (1024, 2048),
    "Qwen/Qwen3-1.7B": (2048, 2048),
    "Qwen/Qwen3-4B": (2560, 4096),
    "Qwen/Qwen3-8B": (4096, 4096),
    "Qwen/Qwen3-14B": (5120, 5120),
    "Qwen/Qwen3-0.6B-Base": (1024, 2048),
    "Qwen/Qwen3-1.7B-Base": (2048, 2048),
    "Qwen/Qwen3-8B-Base": (4096, 4096),
    "Qwen/Qwen3-30B-A3B-Base": (2048, 4096),
    "Qwen/Qwen3.5-2B-Base": (2048, 2048),
    "Qwen/Qwen3.5-9B-Base": (4096, 4096),
    "Qwen/Qwen3.5-27B": (5120, 5120),
    "Qwen/Qwen3.5-35B-A3B-Base": (2048, 2048),
    "Qwen/Qwen2.5-7B-Instruct": (3584, 3584),
    "openai/gpt-oss-20b": (2880, 4096),
}
# Latents, where neither path nor dashboard says how many.
LATENTS = {
    "gpt2-small-res-jb": 24_576,
    "gemma-2b-res-jb": 16_384,
    "pythia-70m-deduped-res-sm": 32_768,
    "pythia-70m-deduped-mlp-sm": 32_768,
    "pythia-70m-deduped-att-sm": 32_768,
    "mistral-7b-res-wg": 65_536,
    "llama-3-8b-it-res-jh": 65_536,
    "goodfire-llama-3.1-8b-instruct": 65_536,
    "goodfire-llama-3.3-70b-instruct": 65_536,
    "llama-3.1-8b-instruct-andyrdt": 131_072,
    "qwen2.5-7b-instruct-andyrdt": 131_072,
    "gpt-oss-20b-andyrdt": 131_072,
    # 60 latents an input, as in the publications of these end-to-end SAEs.
    **dict.fromkeys(
        (f"gpt2-small-res_{kind}-ajt" for kind in ("sce", "scefr", "scl", "sle", "slefr", "sll")),
        46_080,
    ),
    "mwhanna-qwen3-0.6b-transcoders-lowl0": 163_840,
    "mwhanna-qwen3-1.7b-transcoders-lowl0": 163_840,
    "mwhanna-qwen3-4b-transcoders": 163_840,
    "mwhanna-qwen3-8b-transcoders": 163_840,
    "mwhanna-qwen3-14b-transcoders": 163_840,
}
# The L0 of TopK, by the beginning of the release's name: its k.
TOP_K = {
    "gpt2-small-attn-out-v5": 32,
    "gpt2-small-mlp-out-v5": 32,
    "gpt2-small-resid-mid-v5": 32,
    "llama-3.1-8b-instruct-andyrdt": 64,
    "qwen2.5-7b-instruct-andyrdt": 64,
    "gpt-oss-20b-andyrdt": 64,
}
# By the beginning of the repository's name.
LICENCES = {
    "google/gemma-scope": "cc-by-4.0",
    "mntss/transcoder-Llama-3.2-1B": "mit",
    "mwhanna/qwen3-0.6b": "mit",
    "mwhanna/qwen3-1.7b": "mit",
    "mwhanna/qwen3-4b": "mit",
    "mwhanna/qwen3-14b-transcoders": "mit",
    "jbloom/GPT2-Small-OAI-v5-32k-resid-post": "mit",
    "jbloom/GPT2-Small-OAI-v5-128k-resid-post": "mit",
}
# Families whose files hold bf16; all others that are known hold fp32.
IN_BF16 = ("Llama Scope", "circuit-tracer")


@dataclass(frozen=True)
class ManyLayers:
    """A crosscoder, or a cross-layer transcoder (CLT): one SAE over several layers.

    layers: the blocks that it reads; width: latents of all of them together.
    read, written: kinds of hook points, where the files' publishers name them.
    l0: of the whole SAE, where its configuration gives it.
    """

    repository: str
    model: str
    format: str
    kind: str  # crosscoder or clt
    layers: tuple[int, ...]
    width: int
    read: str
    written: str
    path: str = ""
    l0: float | None = None

    @property
    def bytes(self) -> int:
        """Of its files. Each latent has an encoder row and a decoder row for each layer that it
        may write to; Gemma Scope 2 stores rows for all layers, and a square for each affine skip.
        """
        inputs, number = WIDTHS[self.model][0], len(self.layers)
        each, whole = (BF16, False) if self.format in IN_BF16 else (FP32, True)
        written = number if whole else (number + 1) / 2
        skip = number * inputs**2 if self.path.endswith("_affine") else 0
        return each * (int(self.width * inputs * (1 + written)) + skip)


def _circuit_tracer(
    repository: str,
    model: str,
    layers: int,
    each: int,
    hooks: tuple[str, str] = ("resid_mid", "mlp_out"),
    l0: float | None = None,
) -> ManyLayers:
    return ManyLayers(
        repository,
        model,
        "circuit-tracer",
        "clt",
        tuple(range(layers)),
        layers * each,
        *hooks,
        l0=l0,
    )


def _gemma_clt(size: str, layers: int, name: str, l0: float | None = None) -> ManyLayers:
    return ManyLayers(
        f"google/gemma-scope-2-{size}",
        f"google/gemma-3-{size.removesuffix('-pt') if size == '270m-pt' else size}",
        "Gemma Scope 2",
        "clt",
        tuple(range(layers)),
        262_080,
        "mlp_in",
        "mlp_out",
        f"clt/width_262k_{name}",
        l0,
    )


def _gemma_crosscoder(
    size: str, layers: tuple[int, ...], width: tuple[str, int], l0: str, known: float | None = None
) -> ManyLayers:
    numbers = "_".join(map(str, layers))
    return ManyLayers(
        f"google/gemma-scope-2-{size}",
        f"google/gemma-3-{size.removesuffix('-pt') if size == '270m-pt' else size}",
        "Gemma Scope 2",
        "crosscoder",
        layers,
        width[1],
        "resid_post",
        "resid_post",
        f"crosscoder/layer_{numbers}_width_{width[0]}_l0_{l0}",
        known,
    )


_65K, _262K = ("65k", 65_536), ("262k", 262_144)
_524K, _1M = ("524k", 524_288), ("1m", 1_048_576)
_OF_27B = (16, 31, 40, 53)
_UNNAMED = ("", "")  # only the files name the hook points

MANY_LAYERS = (
    _circuit_tracer("mntss/clt-gemma-2-2b-426k", "google/gemma-2-2b", 26, 16_384),
    _circuit_tracer("mntss/clt-gemma-2-2b-2.5M", "google/gemma-2-2b", 26, 98_304),
    _circuit_tracer("mntss/clt-llama-3.2-1b-524k", "meta-llama/Llama-3.2-1B", 16, 32_768),
    _circuit_tracer("mntss/clt-131k", "openai/gpt-oss-20b", 24, 131_072),
    _circuit_tracer(
        "bluelightai/clt-qwen3-0.6b-base-20k", "Qwen/Qwen3-0.6B-Base", 28, 20_480, _UNNAMED, 115
    ),
    _circuit_tracer(
        "bluelightai/clt-qwen3-1.7b-base-20k", "Qwen/Qwen3-1.7B-Base", 28, 20_480, _UNNAMED
    ),
    _gemma_clt("270m-pt", 18, "l0_medium_affine"),
    _gemma_clt("270m-pt", 18, "l0_big", 150),
    _gemma_clt("1b-pt", 26, "l0_medium"),
    _gemma_clt("1b-pt", 26, "l0_medium_affine"),
    _gemma_clt("1b-it", 26, "l0_medium_affine"),
    _gemma_crosscoder("270m-pt", (5, 9, 12, 15), _1M, "big", 150),
    _gemma_crosscoder("1b-pt", (7, 13, 17, 22), _262K, "medium"),
    _gemma_crosscoder("1b-it", (7, 13, 17, 22), _262K, "medium"),
    _gemma_crosscoder("4b-it", (9, 17, 22, 29), _65K, "medium"),
    _gemma_crosscoder("27b-pt", _OF_27B, _262K, "medium"),
    *(
        _gemma_crosscoder("27b-it", _OF_27B, width, l0)
        for width in (_65K, _262K, _524K)
        for l0 in ("medium", "big")
    ),
)

# One transcoder a layer, not in the registry: repository, model, layers, latents.
PER_LAYER = (("mntss/transcoder-Llama-3.2-1B", "meta-llama/Llama-3.2-1B", 16, 131_072),)
