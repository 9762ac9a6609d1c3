"""Tiny random models of many architectures: three blocks of width 32 and noticeable weights."""

from typing import Any

import torch

from mi_crow.language_model import LanguageModel
from tests.helpers.tiny_models import build_tokenizer

_USUAL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2}
_FAIRSEQ = {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 48}

# Beside the usual sizes, or in place of them ("only"); "kind" where one class has several forms.
SPECIFICS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"only": _GPT},
    "gpt_neo": {
        "only": {
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global"], 3]],
            "max_position_embeddings": 64,
        }
    },
    "gpt_neox": {},
    "gptj": {"only": _GPT | {"rotary_dim": 4}},
    "gpt_bigcode": {"only": _GPT},
    "codegen": {"only": _GPT | {"rotary_dim": 4}},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "falcon": {"only": _SMALL},
    "falcon in sequence": {"kind": "falcon", "only": _SMALL | {"parallel_attn": False}},
    "falcon with two norms": {
        "kind": "falcon",
        "only": _SMALL | {"new_decoder_architecture": True, "num_kv_heads": 2},
    },
    "cohere": {},
    "cohere2": {},
    "gemma": {},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {**_MOE, "moe_intermediate_size": 32, "decoder_sparse_step": 1},
    "mixtral": {"num_local_experts": 4},
    "olmo": {},
    "olmo2": {},
    "olmoe": _MOE,
    "glm4": {"partial_rotary_factor": 0.5},
    "exaone4": {"sliding_window": 8},
    "granite": {"residual_multiplier": 0.22},
    "granitemoehybrid": {
        **_MAMBA,
        "mamba_expand": 2,
        "residual_multiplier": 0.3,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 32,
        "layer_types": ["mamba", "attention", "mamba"],
    },
    "bloom": {"only": {"hidden_size": 32, "n_layer": 3, "n_head": 4}},
    "mpt": {"only": {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 64}},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "stablelm": {},
    "stablelm in parallel": {"kind": "stablelm", "use_parallel_residual": True},
    "starcoder2": {},
    "mamba": {"only": {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}},
    "mamba2": {
        "only": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 4,
        }
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "bamba": {**_MAMBA, "mamba_expand": 2, "attn_layer_indices": [1]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "falcon_h1": {
        **_MAMBA,
        "mamba_d_ssm": 64,
        "ssm_out_multiplier": 0.5,
        "attention_out_multiplier": 0.7,
    },
    "nemotron": {},
    "recurrent_gemma": {"attention_window_size": 8, "lru_width": 32},
    "smollm3": {"pad_token_id": 0},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "head_dim": None,
        "num_key_value_heads": 4,
    },
    "llama4_text": {
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
        "attention_chunk_size": 32,
        "interleave_moe_layer_step": 2,
    },
    "biogpt": {"pad_token_id": 0},
    "xglm": {"only": _FAIRSEQ | {"max_position_embeddings": 64, "pad_token_id": 0}},
    "rwkv": {
        "only": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "attention_hidden_size": 32,
            "context_length": 64,
        }
    },
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    "gemma3n_text": {
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
        "altup_num_inputs": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "sliding_window": 8,
        "activation_sparsity_pattern": [0.0] * 3,
        "vocab_size_per_layer_input": 400,
    },
}


def tiny(name: str, dtype: torch.dtype = torch.float32, **over: Any) -> LanguageModel:
    """A random model whose norms have gains, so that no two points coincide by chance."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    tokenizer = build_tokenizer()
    given = dict(SPECIFICS[name])
    kind, only = given.pop("kind", name), given.pop("only", None)
    sizes = {**(_USUAL if only is None else only), **given, **over}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    sizes = {key: value for key, value in sizes.items() if value is not None}
    config_class: Any = CONFIG_MAPPING[kind]
    config = config_class(vocab_size=len(tokenizer), **{**ends, **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    random_weights(model)
    return LanguageModel.from_local_torch(model.to(dtype), tokenizer)


def random_weights(model: Any) -> None:
    """Weights of a size at which every sub-layer matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * (0.7 / parameter.shape[-1] ** 0.5))
            elif "norm" in name or "ln" in name:
                parameter.add_(noise * 0.3)
