"""Small random models of every kind of cache that transformers has, for the tests of generation."""

from typing import Any

import torch

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_NO_HEADS: dict[str, Any] = {"num_key_value_heads": None, "head_dim": None}
_NO_ATTENTION: dict[str, Any] = {
    **_NO_HEADS,
    "num_attention_heads": None,
    "intermediate_size": None,
    "max_position_embeddings": None,
}
_OWN: dict[str, Any] = {**_NO_ATTENTION, "hidden_size": None, "num_hidden_layers": None}
_GPT2: dict[str, Any] = {**_OWN, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
_MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
_EXPERTS: dict[str, Any] = {"num_local_experts": 2, "num_experts_per_tok": 1}
_LINEAR = ["linear_attention", "full_attention", "linear_attention"]
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}

# What a kind needs beside the sizes; None leaves out.
KINDS: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "biogpt": _NO_HEADS,
    "bloom": {**_OWN, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "codegen": {**_GPT2, "rotary_dim": 4},
    "cohere2": {"sliding_window": 8},
    "ctrl": {**_GPT2, "dff": 64},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "head_dim": None,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    "falcon": {**_NO_HEADS, "intermediate_size": None},
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 64},
    "falcon_mamba": {**_NO_ATTENTION, "state_size": 8},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "gpt2": _GPT2,
    "gpt_neox": _NO_HEADS,
    "gpt_oss": {
        **_EXPERTS,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "granitemoehybrid": {
        **_MAMBA2,
        "head_dim": None,
        "layer_types": ["mamba", "attention", "mamba"],
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
    },
    "jamba": {
        "head_dim": None,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "llama": {},
    "llama4_text": {**_EXPERTS, "attention_chunk_size": 16, "intermediate_size_mlp": 64},
    "mamba": {**_NO_ATTENTION, "state_size": 8},
    "mamba2": {
        **_NO_ATTENTION,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "minimax": {**_EXPERTS, "layer_types": _LINEAR, "block_size": 16},
    "mistral": {"sliding_window": 8},
    "mpt": {**_OWN, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 256},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "opt": {**_NO_HEADS, "intermediate_size": None, "ffn_dim": 64, "word_embed_proj_dim": 32},
    # The prompt lies below its shorter context, the continuation reaches beyond.
    "phi3": {
        "rope_parameters": {**_LONG, "rope_theta": 10000.0},
        "original_max_position_embeddings": 32,
    },
    "qwen3": {},
    "qwen3_next": {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": _LINEAR,
    },
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 8,
        "max_position_embeddings": None,
    },
    "rwkv": {**_NO_ATTENTION, "attention_hidden_size": 32, "context_length": 256},
    "xglm": {
        **_OWN,
        "d_model": 32,
        "num_layers": 3,
        "attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 256,
    },
    "xlstm": {
        **_NO_ATTENTION,
        "hidden_size": 64,
        "num_blocks": 3,
        "num_heads": 4,
        "qk_dim_factor": 1.0,
        "mlstm_round_up_to_multiple_of": 1,
        "chunkwise_kernel": "chunkwise--native_autograd",
        "sequence_kernel": "native_sequence__native",
        "step_kernel": "native",
        "mode": "inference",
    },
    "zamba2": {
        "head_dim": None,
        "layer_types": ["mamba", "hybrid", "mamba"],
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "chunk_size": 16,
        "hybrid_layer_ids": [1],
        "num_mem_blocks": 1,
        "use_shared_attention_adapter": False,
        "adapter_rank": 4,
    },
}


def build_kind(kind: str, vocabulary: int) -> Any:
    """A random causal LM of a kind; its weights are large enough to tell tokens apart."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {**_SIZES, **KINDS[kind]}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    given = {name: value for name, value in sizes.items() if value is not None}
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **given, **ends)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.8 / parameter.shape[-1] ** 0.5)
    return model
