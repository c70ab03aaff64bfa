"""The report of two models: how long it takes to build, how large it is, and when a browser is done with it.

Run from the root of the repository: ``PYTHONPATH=tests python benchmarks/report.py``. Needs torchvision, transformers,
selenium and Chromium; weights are random.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision_stub
from viz.browser import missing, opened, started

from dlb_core import DLBacktrace, Explanation
from dlb_core.table import Table

RUNS = 5


def resnet50() -> Explanation:
    from torchvision.models import resnet50

    image = torch.rand(1, 3, 224, 224)
    explanation = DLBacktrace(resnet50().eval(), image).explain(image, mode="epsilon")
    return explanation.captioned(model="resnet50")


def bert() -> Explanation:
    from transformers import BertConfig, BertForSequenceClassification

    ids = torch.randint(1000, 20000, (1, 128))
    config = BertConfig(num_labels=2)
    model = BertForSequenceClassification(config).eval()
    explanation = DLBacktrace(model, {"input_ids": ids}).explain(input_ids=ids, mode="epsilon")
    words = [f" word{i}" for i in range(128)]
    return explanation.captioned(model="BERT, 12 layers", tokens=words, classes=["negative", "positive"])


def measured(make: Callable[[], Explanation], folder: Path) -> tuple[float, int]:
    """Seconds to build the file, and its bytes."""
    explanation = make()
    path = folder / f"{make.__name__}.html"
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        explanation.to_html(path)
        times.append(time.perf_counter() - start)
    return statistics.median(times), path.stat().st_size


def ready(path: Path) -> tuple[float, float]:
    """Milliseconds until the page reacts to the reader, and until it is first painted."""
    times, paints = [], []
    with started() as driver:
        for _ in range(RUNS):
            opened(driver, path)
            paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
            times.append(driver.execute_script("return window.dlbReady"))
            while not (painted := driver.execute_script(paint)):
                time.sleep(0.05)
            paints.append(painted)
    return statistics.median(times), statistics.median(paints)


def main() -> None:
    torchvision_stub.register()  # transformers asks for torchvision's ops, which not every build of it has
    torch.manual_seed(0)
    rows: list[tuple[str | float | None, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for make in (resnet50, bert):
            seconds, size = measured(make, Path(folder))
            interactive, painted = (None, None) if missing() else ready(Path(folder) / f"{make.__name__}.html")
            rows.append((make.__name__, seconds, size / 1e6, interactive, painted))
    print(Table(("model", "built in s", "MB", "interactive ms", "painted ms"), rows))
    if missing():
        print(missing())


if __name__ == "__main__":
    main()
