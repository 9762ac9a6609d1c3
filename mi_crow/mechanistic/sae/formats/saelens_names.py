"""The keys of SAELens files, old and new."""

SCALER_NAME = "activation_scaler.json"  # beside checkpoints whose input scale is not folded in

# Keys that say what the SAE computes.
RULE_KEYS = frozenset(
    [
        "architecture",
        "d_in",
        "d_sae",
        "d_out",
        "k",
        "rescale_acts_by_decoder_norm",
        "matryoshka_widths",
        "dtype",
        "apply_b_dec_to_input",
        "normalize_activations",
        "reshape_activations",
        "metadata",
    ]
)

# Keys of one architecture, that say what it computes.
PURSUIT_KEYS = frozenset(["max_iterations", "residual_threshold", "stop_on_duplicate_support"])

# Keys of other SAELens architectures and of old files that say what the SAE computes, and that this
# version does not support: with one of them the rule is not the one that we would read.
FOREIGN_RULE_KEYS = frozenset(
    [
        "activation_normalization_factor",  # temporal: this and the six below
        "bottleneck_factor",
        "kval_topk",
        "n_attn_layers",
        "n_heads",
        "sae_diff_type",
        "tied_weights",
        "scaling_factor",  # of the input: this and the one below
        "norm_scaling_factor",
    ]
)
# Parts of future keys that would change activations, latents or both.
_RULE_WORDS = ("whiten", "activation_fn", "act_fn", "rescale_acts", "input_scale", "output_scale")


def may_change_rule(key: str) -> bool:
    """Whether an unknown key may say what the SAE computes.

    Every other unknown key is assumed to be about training: each release of SAELens has new ones,
    which do not affect what the SAE computes.
    """
    return key in FOREIGN_RULE_KEYS | PURSUIT_KEYS or any(word in key for word in _RULE_WORDS)


# Keys of the flat files before 6.0 that are now part of the architecture.
OLD_RULE_KEYS = frozenset(["activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor"])

# Keys of SAEs that SAELens 6 saved in training: how they were trained.
TRAINING_KEYS = frozenset(
    [
        "aux_loss_coefficient",
        "decoder_init_norm",
        "device",
        "jumprelu_bandwidth",
        "jumprelu_init_threshold",
        "jumprelu_sparsity_loss_mode",
        "jumprelu_ste_to_input",
        "jumprelu_tanh_scale",
        "l0_coefficient",
        "l0_warm_up_steps",
        "l1_coefficient",
        "l1_warm_up_steps",
        "lp_norm",
        "pre_act_loss_coefficient",
        "sae_lens_training_version",
        "sae_lens_version",
        "target_l0",
        "topk_threshold_lr",
        "use_matryoshka_aux_loss",
        "use_sparse_activations",
    ]
)

# Keys of the flat files before 6.0 that are now in `metadata`.
OLD_METADATA_KEYS = frozenset(
    [
        "context_size",
        "dataset_path",
        "exclude_special_tokens",
        "hook_head_index",
        "hook_name",
        "model_class_name",
        "model_from_pretrained_kwargs",
        "model_name",
        "neuronpedia_id",
        "prepend_bos",
        "sae_lens_training_version",
        "sae_lens_version",
        "seqpos_slice",
    ]
)

# Keys of those files on how and where an SAE was trained.
OLD_TRAINING_KEYS = frozenset(
    [
        "act_store_device",
        "adam_beta1",
        "adam_beta2",
        "autocast",
        "autocast_lm",
        "b_dec_init_method",
        "cached_activations_path",
        "checkpoint_path",
        "compile_llm",
        "compile_sae",
        "dataset_trust_remote_code",
        "dead_feature_estimation_method",
        "dead_feature_threshold",
        "dead_feature_window",
        "decoder_heuristic_init",
        "decoder_heuristic_init_norm",
        "decoder_orthogonal_init",
        "device",
        "eval_batch_size_prompts",
        "eval_every_n_wandb_logs",
        "expansion_factor",
        "feature_reinit_scale",
        "feature_sampling_method",
        "feature_sampling_window",
        "finetuning_method",
        "finetuning_tokens",
        "from_pretrained_path",
        "hook_eval",
        "hook_layer",
        "hook_point_eval",
        "hook_point_layer",
        "init_encoder_as_decoder_transpose",
        "is_dataset_tokenized",
        "jumprelu_bandwidth",
        "jumprelu_init_threshold",
        "l1_coefficient",
        "l1_warm_up_steps",
        "llm_compilation_mode",
        "log_activations_store_to_wandb",
        "log_optimizer_state_to_wandb",
        "log_to_wandb",
        "lp_norm",
        "lr",
        "lr_decay_steps",
        "lr_end",
        "lr_scheduler_name",
        "lr_warm_up_steps",
        "model_kwargs",
        "mse_loss_normalization",
        "n_batches_in_buffer",
        "n_checkpoints",
        "n_eval_batches",
        "n_eval_seqs",
        "n_restart_cycles",
        "noise_scale",
        "normalize_sae_decoder",
        "resample_batches",
        "resume",
        "run_name",
        "sae_compilation_mode",
        "scale_sparsity_penalty_by_decoder_norm",
        "seed",
        "store_batch_size",
        "store_batch_size_prompts",
        "streaming",
        "tokens_per_buffer",
        "total_training_steps",
        "total_training_tokens",
        "train_batch_size",
        "train_batch_size_tokens",
        "training_tokens",
        "use_cached_activations",
        "use_ghost_grads",
        "verbose",
        "wandb_entity",
        "wandb_id",
        "wandb_log_frequency",
        "wandb_project",
    ]
)
