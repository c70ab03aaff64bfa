"""`python -m faithfulness`: measures everything and writes docs/faithfulness.md; `--only MODEL ...` prints, no more."""

from __future__ import annotations

import argparse
import os
import warnings

import torch
import torchvision_stub

from . import document
from .problems import PROBLEMS
from .report import measure


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(prog="faithfulness")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, help="measure some of the models, and print the tables")
    only = parser.parse_args().only
    torchvision_stub.register()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    warnings.filterwarnings("ignore", module="captum|zennit")  # that they hook a model and ask for gradients
    records = []
    for record in measure(only or PROBLEMS):
        records.append(record)
        result = f"{record.area.mean:8.3f} ± {record.area.margin:.3f}" if record.area else record.reason
        print(f"{record.problem.name:14} {record.method.label:40} {result}", flush=True)
    if only:
        print(document.measured(records))
    else:
        document.write(records)


if __name__ == "__main__":
    main()
