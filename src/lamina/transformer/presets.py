"""Configurations of well-known models, so that they can be read without a download.

Each is what the model's ``config.json`` on https://huggingface.co says, at the address beside it;
what transformers takes by default is left out. The tests hold the number of parameters of each to
the one its authors, or the file of its weights, give.
"""

from __future__ import annotations

from typing import Any, Final

_LLAMA_3: Final = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "dtype": "bfloat16",
}

# name: where it comes from, and what it says
PRESETS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "gpt2": (
        "openai-community/gpt2; Radford et al. 2019",
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "dtype": "float32"},
    ),
    "gpt2-xl": (
        "openai-community/gpt2-xl; Radford et al. 2019",
        {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "dtype": "float32"},
    ),
    "bert-base": (
        "google-bert/bert-base-uncased; Devlin et al. 2018, arXiv:1810.04805",
        {"model_type": "bert", "architectures": ["BertForMaskedLM"], "dtype": "float32"},
    ),
    "whisper-small": (
        "openai/whisper-small; Radford et al. 2022, arXiv:2212.04356",
        {
            "model_type": "whisper",
            "architectures": ["WhisperForConditionalGeneration"],
            "d_model": 768,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
            "dtype": "float32",
        },
    ),
    "smollm2-135m": (
        "HuggingFaceTB/SmolLM2-135M; Ben Allal et al. 2025, arXiv:2502.02737",
        {
            "model_type": "llama",
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
        },
    ),
    "llama-3.1-8b": (
        "meta-llama/Llama-3.1-8B; Grattafiori et al. 2024, arXiv:2407.21783",
        {
            **_LLAMA_3,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
    ),
    "llama-3.1-70b": (
        "meta-llama/Llama-3.1-70B; Grattafiori et al. 2024, arXiv:2407.21783",
        {
            **_LLAMA_3,
            "hidden_size": 8192,
            "intermediate_size": 28_672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
        },
    ),
    "llama-3.1-405b": (
        "meta-llama/Llama-3.1-405B; Grattafiori et al. 2024, arXiv:2407.21783",
        {
            **_LLAMA_3,
            "hidden_size": 16_384,
            "intermediate_size": 53_248,
            "num_hidden_layers": 126,
            "num_attention_heads": 128,
        },
    ),
    "mistral-7b": (
        "mistralai/Mistral-7B-v0.1; Jiang et al. 2023, arXiv:2310.06825",
        {
            "model_type": "mistral",
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "dtype": "bfloat16",
        },
    ),
    "gemma-2-2b": (
        "google/gemma-2-2b; Gemma Team 2024, arXiv:2408.00118",
        {
            "model_type": "gemma2",
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "dtype": "bfloat16",
        },
    ),
    "qwen2.5-7b": (
        "Qwen/Qwen2.5-7B; Qwen Team 2024, arXiv:2412.15115",
        {
            "model_type": "qwen2",
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "dtype": "bfloat16",
        },
    ),
    "mixtral-8x7b": (
        "mistralai/Mixtral-8x7B-v0.1; Jiang et al. 2024, arXiv:2401.04088",
        {
            "model_type": "mixtral",
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "dtype": "bfloat16",
        },
    ),
    "olmoe-1b-7b": (
        "allenai/OLMoE-1B-7B-0924; Muennighoff et al. 2024, arXiv:2409.02060",
        {
            "model_type": "olmoe",
            "vocab_size": 50_304,
            "hidden_size": 2048,
            "intermediate_size": 1024,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "dtype": "bfloat16",
        },
    ),
    "qwen3-30b-a3b": (
        "Qwen/Qwen3-30B-A3B; Qwen Team 2025, arXiv:2505.09388",
        {
            "model_type": "qwen3_moe",
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "dtype": "bfloat16",
        },
    ),
    "deepseek-v3": (
        "deepseek-ai/DeepSeek-V3; DeepSeek-AI 2024, arXiv:2412.19437",
        {
            "model_type": "deepseek_v3",
            "vocab_size": 129_280,
            "hidden_size": 7168,
            "intermediate_size": 18_432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "dtype": "bfloat16",
        },
    ),
}
