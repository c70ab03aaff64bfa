"""Train `DigitsNet` on scikit-learn's digits; write its weights and a picture of a held-out seven beside this file.

The same machine and the same torch give the same bytes. Nothing is written below the accuracy that is asked for.
"""

from pathlib import Path

import numpy as np
import torch
from model import WEIGHTS, DigitsNet
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
EPOCHS = 30
BATCH = 64
LEAST_ACCURACY = 0.97
PICTURE = Path(__file__).with_name("seven.png")


def train(images: Tensor, labels: Tensor) -> DigitsNet:
    """Train on images [N, 1, 8, 8] and labels [N]; return the model in eval mode."""
    model = DigitsNet().train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, measure on the held-out quarter, write."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the order of a sum, and so its last bits, depends on the number of threads

    digits = load_digits()
    # Train on the values that a PNG can hold, so that the picture is exactly what the model was tested on.
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    split = train_test_split(pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED)
    train_pixels, test_pixels, train_labels, test_labels = map(torch.from_numpy, split)

    model = train(train_pixels[:, None] / 255, train_labels)
    with torch.no_grad():
        predicted = model(test_pixels[:, None] / 255).argmax(1)
    correct = predicted == test_labels
    accuracy = correct.float().mean().item()
    print(f"test accuracy {accuracy:.2%} ({correct.sum()} of {len(correct)})")
    if accuracy < LEAST_ACCURACY:
        raise SystemExit(f"below {LEAST_ACCURACY:.0%}: nothing written")

    seven = (correct & (test_labels == 7)).nonzero()[0].item()
    save_file(model.state_dict(), WEIGHTS)
    Image.fromarray(test_pixels[seven].numpy()).save(PICTURE)
    print(f"wrote {WEIGHTS.name} ({WEIGHTS.stat().st_size / 1000:.0f} kB) and {PICTURE.name}")


if __name__ == "__main__":
    main()
