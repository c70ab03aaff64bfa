"""Tiny random models of every family of experts: transformers' classes, and blocks as a user writes them.

Every parameter is drawn, routers and their corrections, sinks and biases too: what begins as zero hides what a rule
loses on it, and what begins as uninitialised memory is another model at every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo import VOCABULARY, Case, rows

from .blocks import LanguageModel, Table

LENGTH = 7
FREE = ((3, 2), (1, 1), (2, -6))  # longer; one sample; one token, so that most experts have nobody
WHOLE = ((3, 2), (1, 1))  # one token alone is another case to the model's own code
HELD = ((3, 0), (1, 0))  # its scan is unrolled
NOTE = {HELD: "its scan is unrolled: fixed length"}


@dataclass(frozen=True)
class Family(Case):
    """A model of a family, and what its proof must know.

    tracer: the one that must have run. interface: its experts are called through transformers' experts interface, so
    the dense form and the loop can take their place. calls: batch and further tokens of calls that were not traced.
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
    found = text(batch, length)
    found["decoder_input_ids"] = torch.stack([torch.randint(2, VOCABULARY, (max(length - 3, 1),)) for _ in range(batch)])
    return found


def ids(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": text(batch, length)["input_ids"]}


def hf(name: str, head: str = "ForCausalLM", *, settings: str = "", **config: Any) -> Callable[[], nn.Module]:
    """A class of transformers by its name, from a config with these values; `settings`: its config has another name."""

    def build() -> nn.Module:
        special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
        settled = getattr(transformers, f"{settings or name}Config")(vocab_size=VOCABULARY, **special, **config)
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
WIDTHS = {"intermediate_size": 20, "moe_intermediate_size": 12}
TWO = {"num_experts_per_tok": 2}
OF_FOUR = {"num_local_experts": 4, "intermediate_size": 12, **TWO}
OF_SIX = {"num_experts": 6, **TWO, **WIDTHS}
GROUPS = {"n_group": 4, "topk_group": 2, **TWO}  # experts in groups: the best groups first, then the best of these
OF_EIGHT = {"n_routed_experts": 8, "n_shared_experts": 1, **GROUPS, **WIDTHS}
SLIDING = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA2 = {
    "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_d_head": 8, "mamba_d_conv": 3,
    "mamba_chunk_size": 16,
}  # fmt: skip


def _family(name: str, *, about: dict[str, Any] | None = None, **config: Any) -> Family:
    """A causal language model; `about`: in what its proof differs."""
    settled: dict[str, Any] = {"output": "logits", "explained": ("input_ids",), "inputs": text, **(about or {})}
    build = settled.pop("build", None) or hf(name, **config)
    return Family(name, build, length=LENGTH, **settled)


def _families() -> list[Family]:
    biased = {"attention_bias": True}
    common = {"common": True}
    hidden = {"output": "last_hidden_state", "target": (3, 5)}
    return [
        _family("Olmoe", about=common, num_experts=8, intermediate_size=24, **TWO, **biased, **PAIRS),
        _family("Qwen2Moe", about=common, shared_expert_intermediate_size=10, norm_topk_prob=True, **OF_SIX, **PAIRS),
        _family("Qwen3Moe", norm_topk_prob=True, **biased, **OF_SIX, **WIDE),
        _family("Mixtral", sliding_window=3, **OF_FOUR, **PAIRS),
        _family("GptOss", about=common, num_local_experts=6, intermediate_size=24, **TWO, **SLIDING, **WIDE),
        _family("DeepseekV2", topk_method="group_limited_greedy", first_k_dense_replace=1, **biased, **OF_EIGHT, **LATENT),
        _family("DeepseekV3", about=common, first_k_dense_replace=1, **biased, **OF_EIGHT, **LATENT),
        _family("Phimoe", lm_head_bias=True, **biased, **OF_FOUR, **PAIRS),
        _family("GraniteMoe", embedding_multiplier=2.0, residual_multiplier=0.5, **biased, **OF_FOUR, **PAIRS),
        _family("Glm4Moe", first_k_dense_replace=1, use_qk_norm=True, **biased, **OF_EIGHT, **WIDE),
        _family(
            "JetMoe", about={"interface": False, **common}, kv_channels=8, num_key_value_heads=2, hidden_size=16,
            num_hidden_layers=2, max_position_embeddings=40, **OF_FOUR,
        ),
        _family("FlexOlmo", num_experts=5, num_experts_per_tok=3, intermediate_size=12, **biased, **PAIRS),
        _family(
            "Jamba", about={"calls": HELD}, num_experts=4, intermediate_size=12, attn_layer_period=2, attn_layer_offset=1,
            expert_layer_period=1, expert_layer_offset=0, mamba_d_state=4, mamba_d_conv=3, mamba_dt_rank=4, **TWO, **PAIRS,
        ),
        # everything below comes along with the experts interface
        _family("Afmoe", num_shared_experts=1, num_dense_layers=1, route_scale=1.5, **OF_SIX, **SLIDING, **WIDE),
        _family("AriaText", moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1, intermediate_size=12, **PAIRS),
        _family(
            "Cohere2Moe", num_experts=6, num_shared_experts=1, expert_selection_fn="sigmoid", intermediate_size=12,
            **TWO, **SLIDING, **WIDE,
        ),
        _family("Dots1", first_k_dense_replace=1, **biased, **OF_EIGHT, **PAIRS),
        _family(
            "Ernie4_5_Moe", moe_num_experts=6, moe_k=2, moe_num_shared_experts=1, moe_layer_start_index=1,
            moe_layer_end_index=1, use_bias=True, **WIDTHS, **PAIRS,
        ),
        _family(
            "ExaoneMoe", num_experts=8, num_shared_experts=1, first_k_dense_replace=1, **GROUPS, **WIDTHS, **SLIDING, **PAIRS
        ),
        _family("Glm4MoeLite", **biased, **OF_EIGHT, **LATENT),
        _family(
            "GraniteMoeHybrid", about={"calls": WHOLE}, shared_intermediate_size=10, layer_types=["mamba", "attention"],
            **MAMBA2, **OF_FOUR, **PAIRS,
        ),
        _family("GraniteMoeShared", shared_intermediate_size=10, **OF_FOUR, **PAIRS),
        _family("HunYuanMoEV1", num_experts=4, moe_topk=2, intermediate_size=12, **biased, **WIDE),
        _family("Laguna", shared_expert_intermediate_size=10, num_attention_heads_per_layer=[4, 4], **OF_SIX, **SLIDING, **WIDE),
        _family("Lfm2Moe", num_dense_layers=0, conv_bias=True, layer_types=["conv", "full_attention"], **OF_SIX, **PAIRS),
        _family("MiMoV2Flash", v_head_dim=4, **OF_EIGHT, **SLIDING, **WIDE),
        _family(
            "MiniMax", block_size=64, layer_types=["linear_attention", "full_attention"], **OF_FOUR, **PAIRS
        ),
        _family("MiniMaxM2", num_local_experts=6, intermediate_size=12, **TWO, **WIDE),
        _family(
            "MuseSpark", about={"build": hf("MuseSparkText", "Model", moe_hidden_size=12, num_local_experts=4,
            **WIDTHS, **TWO, **SLIDING, **WIDE), **hidden, **common},
        ),
        _family(
            "NemotronH", about={"calls": WHOLE}, layers_block_type=["linear_attention", "moe", "full_attention", "moe"],
            ssm_state_size=4, mamba_num_heads=4, mamba_head_dim=8, n_groups=2, conv_kernel=3, chunk_size=16,
            moe_shared_expert_intermediate_size=10, mlp_bias=True, hidden_size=16, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=40, **OF_EIGHT,
        ),
        _family(
            "OpenAIPrivacyFilter", about={"build": hf("OpenAIPrivacyFilter", "ForTokenClassification", num_local_experts=6,
            intermediate_size=12, sliding_window=3, num_labels=4, **TWO, **WIDE), "output": "logits", "target": (2, 1)},
        ),
        _family(
            "Qwen3Next", about={"calls": WHOLE}, shared_expert_intermediate_size=10, linear_key_head_dim=4,
            linear_value_head_dim=4, linear_num_key_heads=2, linear_num_value_heads=4, linear_conv_kernel_dim=3,
            layer_types=["linear_attention", "full_attention"], **OF_SIX, **WIDE,
        ),
        _family("SolarOpen", n_routed_experts=8, n_shared_experts=1, moe_intermediate_size=12, **GROUPS, **WIDE),
        *_loops(),
    ]  # fmt: skip


def _loops() -> list[Family]:
    """Experts whose code asks the router which of them there are to run, and models in plain PyTorch."""
    taped: dict[str, Any] = {"tracer": "tape", "interface": False}
    both: dict[str, Any] = {**taped, "inputs": pair, "explained": ("decoder_input_ids", "input_ids"), "target": (2, 5)}
    switch = hf(
        "SwitchTransformers", "ForConditionalGeneration", d_model=16, d_kv=4, d_ff=12, num_heads=4, num_experts=4,
        num_layers=2, num_decoder_layers=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, router_bias=True,
        decoder_start_token_id=0,
    )  # fmt: skip
    nllb = hf(
        "NllbMoe", "ForConditionalGeneration", d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=12,
        decoder_ffn_dim=12, encoder_attention_heads=4, decoder_attention_heads=4, num_experts=4, encoder_sparse_step=2,
        decoder_sparse_step=2, router_bias=True, max_position_embeddings=40, decoder_start_token_id=0,
    )  # fmt: skip
    language = {"output": None, "target": (3, 5), "inputs": ids, "interface": False, "common": True}
    table: dict[str, Any] = {"interface": False, "calls": ((5, 0), (1, 0)), "common": True}
    return [
        _family("SwitchTransformers", about={"build": switch, **both}),
        _family("NllbMoe", about={"build": nllb, **both}),
        _family("language, loop", about={"build": partial(LanguageModel, VOCABULARY, True), **language, "tracer": "tape"}),
        _family("language, dense", about={"build": partial(LanguageModel, VOCABULARY, False), **language}),
        Family("table, loop", partial(Table, True), rows(6), **table, tracer="tape"),
        Family("table, dense", partial(Table, False), rows(6), **table),
    ]


FAMILIES = {family.name: family for family in _families()}
COMMON = [name for name, family in FAMILIES.items() if family.common]
