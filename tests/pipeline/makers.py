"""Tiny tokenizers, trained here, and tiny models with random weights, saved to folders as anybody would."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "This product is amazing, and I don't regret buying it!",
    "A terrible product: it broke after 3.14 days.",
    "the quick brown fox jumps over the lazy dog",
    "größer als 东京塔 を見た, naïve café 👍🏽 done",
    "zwei Wörter, drei Worte; l'été est fini",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SLIM = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


@cache
def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT has it: words first, then pieces of them, [CLS] and [SEP] around."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@cache
def bytelevel() -> PreTrainedTokenizerFast:
    """As GPT-2 has it: bytes, spaces in front of words; a character may take several tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet)
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


@cache
def metaspace() -> PreTrainedTokenizerFast:
    """As T5 and XLNet have it: pieces of likelihood, a mark for a space."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>")
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


@cache
def whole_text() -> PreTrainedTokenizerFast:
    """As Llama 2 has it: no words before the pieces, so that a piece may reach over several of them."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split(Regex("$^"), "isolated")
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>", "<s>"]))
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", pad_token="<unk>")


TOKENIZERS = {"wordpiece": wordpiece, "bytelevel": bytelevel, "metaspace": metaspace, "whole-text": whole_text}


def seeded(build: Any) -> nn.Module:
    """A model with the same random weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() < 2:
                    parameter += 0.2 * torch.randn_like(parameter)
    return model


def bert_config(**more: Any) -> transformers.BertConfig:
    labels = {0: "negative", 1: "positive", 2: "neutral"}
    sizes = {"vocab_size": len(wordpiece()), "max_position_embeddings": 40, **SLIM}
    return transformers.BertConfig(**{**sizes, "id2label": labels, **more})


def sentiment(folder: Path) -> str:
    """A BERT with a head for three labels."""
    seeded(lambda: transformers.BertForSequenceClassification(bert_config())).save_pretrained(folder)
    wordpiece().save_pretrained(folder)
    return str(folder)


def bare_encoder(folder: Path) -> str:
    """The same without a head."""
    seeded(lambda: transformers.BertModel(bert_config())).save_pretrained(folder)
    wordpiece().save_pretrained(folder)
    return str(folder)


def writer(folder: Path) -> str:
    """A small Llama."""
    config = transformers.LlamaConfig(
        vocab_size=len(bytelevel()), num_key_value_heads=2, max_position_embeddings=64, eos_token_id=0, **SLIM
    )
    seeded(lambda: transformers.LlamaForCausalLM(config)).save_pretrained(folder)
    bytelevel().save_pretrained(folder)
    return str(folder)


def seer(folder: Path) -> str:
    """A small ViT with its image processor."""
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label={0: "cat", 1: "dog", 2: "fox"}, **SLIM)
    seeded(lambda: transformers.ViTForImageClassification(config)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)
