"""Transformers of every family, with a few thousand random weights."""

from __future__ import annotations

from typing import Any

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {
    "head_dim": 4,
    "num_key_value_heads": 2,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
MIXED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

# model type: what differs from SMALL, or all of it where a family's names are its own
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64,
             "bos_token_id": 1, "eos_token_id": 2},
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "bert": {},
    "whisper": {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 40,
                "decoder_ffn_dim": 40, "num_mel_bins": 8, "max_source_positions": 20,
                "max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1,
                "eos_token_id": 2, "decoder_start_token_id": 1},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**MIXED, "shared_expert_intermediate_size": 32},
    "qwen3_moe": MIXED,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
}  # fmt: skip
# Accelerated, but not taken apart by `anatomy`
OTHERS = {"modernbert": {"global_attn_every_n_layers": 1, "pad_token_id": 0}}


def tiny_config(family: str, **changes: Any) -> Any:
    """Return the tiny configuration of a family."""
    from transformers import CONFIG_MAPPING

    own = FAMILIES.get(family) or OTHERS.get(family, {})
    settings = own if family in ("gpt2", "whisper") else {**SMALL, **own}
    return CONFIG_MAPPING[family](**{**settings, **changes})


def tiny_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny model with random weights, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = tiny_config(family, **changes)
    kind = {
        "bert": "AutoModelForMaskedLM",
        "modernbert": "AutoModelForMaskedLM",
        "whisper": "AutoModelForSpeechSeq2Seq",
    }
    model = getattr(transformers, kind.get(family, "AutoModelForCausalLM")).from_config(config)
    with torch.no_grad():  # biases and norms at their usual 0 and 1 would hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def sample_inputs(model: Any, n_tokens: int = 7, batch: int = 2) -> dict[str, Any]:
    """Return inputs for one forward pass."""
    import torch

    ids = torch.randint(3, 50, (batch, n_tokens), generator=torch.Generator().manual_seed(1))
    if model.config.model_type == "whisper":
        sounds = torch.randn(batch, 8, 40, generator=torch.Generator().manual_seed(2))
        return {"input_features": sounds, "decoder_input_ids": ids}
    return {"input_ids": ids}
