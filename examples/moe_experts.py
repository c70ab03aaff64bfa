"""Train a small mixture of experts on handwritten digits, and see which expert carries which digit.

    make demo-moe                        # or: python examples/moe_experts.py, with dlb-ops-moe and scikit-learn

The network is plain PyTorch: a dense layer, one mixture of eight experts of which a router takes two for each image,
a way around it, a classifier. A loss that grows with uneven load keeps all experts at work; nothing tells them which
digits to take. Every image of the held-out quarter is explained, and what each expert contributed is added up by digit.
A few seconds on one core; the same numbers each time on the same machine.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_ops_moe import ExpertProfile

SEED = 0
EPOCHS = 40
BATCH = 64
BALANCE = 0.05  # how much an uneven load costs
LEAST_ACCURACY = 0.95


class Experts(nn.Module):
    """Eight experts, of which the router takes `k` for each row of x [B, width]."""

    def __init__(self, width: int, experts: int = 8, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        probability = self.router(x).softmax(-1)
        best, chosen = probability.topk(self.k)
        weight = torch.zeros_like(probability).scatter(1, chosen, best / best.sum(-1, keepdim=True))
        return (weight.unsqueeze(-1) * torch.stack([expert(x) for expert in self.experts], 1)).sum(1)

    def unevenness(self, x: Tensor) -> Tensor:
        """1 where all experts are chosen equally often, up to their number where one takes all (Switch's loss)."""
        probability = self.router(x).softmax(-1)
        chosen = torch.zeros_like(probability).scatter(1, probability.topk(self.k).indices, 1 / self.k)
        return len(self.experts) * (chosen.mean(0) * probability.mean(0)).sum()


class DigitsMoE(nn.Module):
    """A dense layer, experts and the way around them, a classifier."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.moe = Experts(width)
        self.classify = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image.flatten(1)).relu()
        return self.classify(x + self.moe(x))


def train(images: Tensor, labels: Tensor) -> DigitsMoE:
    """Train on images [N, 1, 8, 8] and labels [N]; return the model in eval mode."""
    model = DigitsMoE().train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1e-2, total_steps=EPOCHS * -(-len(images) // BATCH)
    )
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            uneven = model.moe.unevenness(model.stem(images[batch].flatten(1)).relu())
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch]) + BALANCE * uneven
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, explain the held-out quarter, print the tables."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of a sum, and so its last bits, depends on the number of threads

    digits = load_digits()
    pixels = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target)
    split = train_test_split(pixels, labels, test_size=0.25, stratify=digits.target, random_state=SEED)
    train_pixels, test_pixels, train_labels, test_labels = split
    model = train(train_pixels, train_labels)

    dlb = DLBacktrace(model, test_pixels)
    profile = ExpertProfile()
    seed = 0.0
    for images, truth in zip(test_pixels.split(BATCH), test_labels.split(BATCH), strict=True):
        found = dlb.explain(images, mode="default", target=truth.tolist())
        profile.add(found, truth)
        seed += found.ledger.seed
    with torch.no_grad():
        correct = model(test_pixels).argmax(1) == test_labels
    accuracy = correct.float().mean().item()
    print(f"test accuracy {accuracy:.1%} ({int(correct.sum())} of {len(correct)})\n")
    if accuracy < LEAST_ACCURACY:
        raise SystemExit(f"below {LEAST_ACCURACY:.0%}: nothing worth explaining")

    (layer,) = profile.layers
    print(profile.table(layer), end="\n\n")
    print(profile.table(layer, of="load"), end="\n\n")
    reached = float(profile.totals(layer).relevance.sum())
    print(f"of {seed:.0f} units, {reached:.0f} went through experts ({reached / seed:.1%}), the rest around them\n")
    print(dlb.explain(test_pixels[test_labels == 7], mode="default", target=7).experts[layer].table())


if __name__ == "__main__":
    main()
