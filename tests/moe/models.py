"""Tiny random models of every family of experts: transformers' classes, and blocks as a user writes them.

Every parameter is drawn, routers and their corrections, sinks and biases too: what begins as zero hides what a rule
loses on it, and what begins as uninitialised memory is another model at every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from zoo import VOCABULARY, Case, rows

from dlb_core import DLBacktrace

from .blocks import LanguageModel, Table

LENGTH = 7
EXACT = torch.float64
FREE = ((3, 2), (1, 1), (2, -6))  # longer; one sample; one token, so that most experts have nobody
HELD = ((3, 0), (1, 0))  # its scan is unrolled


@dataclass(frozen=True)
class Family(Case):
    """A model of a family, and what its proof must know.

    tracer: the one that must have run. interface: its experts are called through transformers' experts interface, so
    the dense form and the loop can stand in for them. calls: batch and further tokens of calls that were not traced.
    output, target: what is explained, as `DLBacktrace` takes it. common: part of every test run.
    """

    tracer: str = "export"
    interface: bool = True
    calls: tuple[tuple[int, int], ...] = FREE
    output: str | None = None
    target: Any = None
    common: bool = False

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model, the same weights at every call.

        In float64 its experts run one after the other: the grouped product, which they run as by default, knows no
        float64.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: Any = drawn(self.build()).to(dtype).eval()
        if self.interface and dtype == torch.float64:
            model.set_experts_implementation("eager")
        return model


def drawn(model: nn.Module) -> nn.Module:
    """Every parameter drawn, and the buffers that correct a router's scores."""
    corrections = [(name, b) for name, b in model.named_buffers() if name.endswith("bias")]
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *corrections]:
            if p.dim() > 1:
                p.normal_(std=p.shape[-1] ** -0.5)
            elif name.endswith(("bias", "sinks")):
                p.normal_(std=0.3)
            else:  # a norm's weight, a decay: around where it begins
                p += 0.3 * torch.randn_like(p)
    return model


def text(batch: int, length: int) -> dict[str, Tensor]:
    """Ids and their mask; of a longer text every second sample ends with two padded positions."""
    ids = torch.stack([torch.randint(1, VOCABULARY, (length,)) for _ in range(batch)])
    mask = torch.ones_like(ids)
    if length > 2:
        mask[1::2, -2:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def pair(batch: int, length: int) -> dict[str, Tensor]:
    """A source with its mask and a target text of a length of its own."""
    target = max(length - 3, 1)
    decoded = torch.stack([torch.randint(2, VOCABULARY, (target,)) for _ in range(batch)])
    return {**text(batch, length), "decoder_input_ids": decoded}


def ids(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": text(batch, length)["input_ids"]}


def hf(name: str, head: str = "ForCausalLM", **config: Any) -> Callable[[], nn.Module]:
    """A class of transformers by its name, from a config with these values."""

    def build() -> nn.Module:
        special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
        settled = getattr(transformers, f"{name}Config")(vocab_size=VOCABULARY, **special, **config)
        model: nn.Module = getattr(transformers, f"{name}{head}")(settled)
        return model

    return build


CORE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 40}
PAIRS = {**CORE, "num_key_value_heads": 2}  # two query heads to a key head
WIDE = {**PAIRS, "head_dim": 8}
LATENT = {
    **CORE, "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 4,
    "qk_nope_head_dim": 4,
}  # fmt: skip
BIASED = {"attention_bias": True}
SLIDING = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
NARROW = {"intermediate_size": 12}
WIDTHS = {"intermediate_size": 20, "moe_intermediate_size": 12}  # of dense layers, of experts
SHARED = {"shared_expert_intermediate_size": 10}
TWO = {"num_experts_per_tok": 2}
OF_FOUR = {"num_local_experts": 4, **NARROW, **TWO}
OF_SIX = {"num_experts": 6, **WIDTHS, **TWO}
GROUPS = {"n_group": 4, "topk_group": 2, **TWO}  # experts in groups: the best groups first, then the best of these
OF_EIGHT = {"n_routed_experts": 8, "n_shared_experts": 1, **GROUPS, **WIDTHS}
DENSE_FIRST = {"first_k_dense_replace": 1}

#: Causal language models by name.
DECODERS: dict[str, dict[str, Any]] = {
    "Olmoe": {"num_experts": 8, "intermediate_size": 24, **TWO, **BIASED, **PAIRS},
    "Qwen2Moe": {"norm_topk_prob": True, **SHARED, **OF_SIX, **PAIRS},
    "Qwen3Moe": {"norm_topk_prob": True, **BIASED, **OF_SIX, **WIDE},
    "Mixtral": {"sliding_window": 3, **OF_FOUR, **PAIRS},
    "GptOss": {"num_local_experts": 6, "intermediate_size": 24, **TWO, **SLIDING, **WIDE},
    "DeepseekV2": {"topk_method": "group_limited_greedy", **DENSE_FIRST, **BIASED, **OF_EIGHT, **LATENT},
    "DeepseekV3": {**DENSE_FIRST, **BIASED, **OF_EIGHT, **LATENT},
    "Phimoe": {"lm_head_bias": True, **BIASED, **OF_FOUR, **PAIRS},
    "GraniteMoe": {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, **BIASED, **OF_FOUR, **PAIRS},
    "Glm4Moe": {"use_qk_norm": True, **DENSE_FIRST, **BIASED, **OF_EIGHT, **WIDE},
    "JetMoe": {
        "kv_channels": 8, "num_key_value_heads": 2, "hidden_size": 16, "num_hidden_layers": 2,
        "max_position_embeddings": 40, **OF_FOUR,
    },
    "FlexOlmo": {"num_experts": 5, "num_experts_per_tok": 3, **NARROW, **BIASED, **PAIRS},
    "Jamba": {
        "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 1,
        "expert_layer_offset": 0, "mamba_d_state": 4, "mamba_d_conv": 3, "mamba_dt_rank": 4, **NARROW, **TWO, **PAIRS,
    },
    # what follows comes along with transformers' experts interface
    "Afmoe": {"num_shared_experts": 1, "num_dense_layers": 1, "route_scale": 1.5, **OF_SIX, **SLIDING, **WIDE},
    "AriaText": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1, **NARROW, **PAIRS},
    "Cohere2Moe": {
        "num_experts": 6, "num_shared_experts": 1, "expert_selection_fn": "sigmoid", **NARROW, **TWO, **SLIDING, **WIDE,
    },
    "Dots1": {**DENSE_FIRST, **BIASED, **OF_EIGHT, **PAIRS},
    "Ernie4_5_Moe": {
        "moe_num_experts": 6, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_start_index": 1,
        "moe_layer_end_index": 1, "use_bias": True, **WIDTHS, **PAIRS,
    },
    "ExaoneMoe": {"num_experts": 8, "num_shared_experts": 1, **DENSE_FIRST, **GROUPS, **WIDTHS, **SLIDING, **PAIRS},
    "Glm4MoeLite": {**BIASED, **OF_EIGHT, **LATENT},
    "GraniteMoeHybrid": {
        "shared_intermediate_size": 10, "layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_n_groups": 2,
        "mamba_d_state": 4, "mamba_d_head": 8, "mamba_d_conv": 3, "mamba_chunk_size": 4, **OF_FOUR, **PAIRS,
    },
    "GraniteMoeShared": {"shared_intermediate_size": 10, **OF_FOUR, **PAIRS},
    "HunYuanMoEV1": {"num_experts": 4, "moe_topk": 2, **NARROW, **BIASED, **WIDE},
    "Laguna": {"num_attention_heads_per_layer": [4, 4], **SHARED, **OF_SIX, **SLIDING, **WIDE},
    "Lfm2Moe": {
        "num_dense_layers": 0, "conv_bias": True, "layer_types": ["conv", "full_attention"], **OF_SIX, **PAIRS,
    },
    "MiMoV2Flash": {"v_head_dim": 4, **OF_EIGHT, **SLIDING, **WIDE},
    "MiniMax": {"block_size": 64, "layer_types": ["linear_attention", "full_attention"], **OF_FOUR, **PAIRS},
    "MiniMaxM2": {"num_local_experts": 6, **NARROW, **TWO, **WIDE},
    "NemotronH": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "ssm_state_size": 4,
        "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2, "conv_kernel": 3, "chunk_size": 4,
        "moe_shared_expert_intermediate_size": 10, "mlp_bias": True, "hidden_size": 16, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 40, **OF_EIGHT,
    },
    "SolarOpen": {"n_routed_experts": 8, "n_shared_experts": 1, "moe_intermediate_size": 12, **GROUPS, **WIDE},
}  # fmt: skip

#: Others, with their class's head and what is explained of them.
HEADS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "MuseSparkText": (
        "Model",
        {"moe_hidden_size": 12, "num_local_experts": 4, **WIDTHS, **TWO, **SLIDING, **WIDE},
        {"output": "last_hidden_state", "target": (3, 5)},
    ),
    "OpenAIPrivacyFilter": (
        "ForTokenClassification",
        {"num_local_experts": 6, "sliding_window": 3, "num_labels": 4, **NARROW, **TWO, **WIDE},
        {"target": (2, 1)},
    ),
}

PAIRED: dict[str, Any] = {
    "tracer": "tape", "interface": False, "inputs": pair, "explained": ("decoder_input_ids", "input_ids"),
    "target": (2, 5),
}  # fmt: skip
#: Encoders and decoders whose code asks the router which experts there are to run.
TAPED: dict[str, dict[str, Any]] = {
    "SwitchTransformers": {
        "d_model": 16, "d_kv": 4, "d_ff": 12, "num_heads": 4, "num_experts": 4, "num_layers": 2,
        "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "router_bias": True,
    },
    "NllbMoe": {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_experts": 4, "encoder_sparse_step": 2,
        "decoder_sparse_step": 2, "router_bias": True, "max_position_embeddings": 40,
    },
}  # fmt: skip

#: In what the proof of a family differs.
ABOUT: dict[str, dict[str, Any]] = {
    "JetMoe": {"interface": False},
    "Jamba": {"calls": HELD},
}
COMMON = ("Olmoe", "GptOss", "DeepseekV3", "JetMoe")


def _families() -> list[Family]:
    def family(name: str, build: Callable[[], nn.Module], **about: Any) -> Family:
        settled = {"inputs": text, "explained": ("input_ids",), "output": "logits", **about, **ABOUT.get(name, {})}
        return Family(name, build, length=LENGTH, common=name in COMMON, **settled)

    def plain(name: str, build: Callable[[], nn.Module], **about: Any) -> Family:
        tracer = "tape" if name.endswith("loop") else "export"
        return Family(name, build, interface=False, common=True, tracer=tracer, **about)

    language: dict[str, Any] = {"inputs": ids, "length": LENGTH, "explained": ("input_ids",), "target": (3, 5)}
    table: dict[str, Any] = {"inputs": rows(6), "calls": ((5, 0), (1, 0))}
    return [
        *(family(name, hf(name, **config)) for name, config in DECODERS.items()),
        *(family(name, hf(name, head, **config), **about) for name, (head, config, about) in HEADS.items()),
        *(
            family(name, hf(name, "ForConditionalGeneration", decoder_start_token_id=0, **config), **PAIRED)
            for name, config in TAPED.items()
        ),
        plain("language, loop", partial(LanguageModel, VOCABULARY, True), **language),
        plain("language, dense", partial(LanguageModel, VOCABULARY, False), **language),
        plain("table, loop", partial(Table, True), **table),
        plain("table, dense", partial(Table, False), **table),
    ]


FAMILIES = {family.name: family for family in _families()}


class Traced(NamedTuple):
    """A float64 model, its program, and the inputs that it was traced with."""

    family: Family
    model: nn.Module
    dlb: DLBacktrace
    call: dict[str, Tensor]


@cache
def traced(name: str) -> Traced:
    """A family as it is exported, once in a process; of an interface the experts run one after the other."""
    family = FAMILIES[name]
    model, call = family.model(EXACT), family.example(dtype=EXACT)
    return Traced(family, model, DLBacktrace(model, call, output=family.output), call)
