"""The pages of `dlb explain --model`: a text with its words coloured, the strongest ones, what was written and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from dlb_core.cli.named_data import Written, prompt_words
from dlb_core.cli.page import Files, bar, print_experts, print_files, print_ledger, print_strongest, print_title
from dlb_core.cli.screen import heading, show, table
from dlb_core.findings import CLASSES, Strong, ledgers, routed, summed
from dlb_core.kernel.ledger import Ledger
from dlb_core.pipeline import PipelineResult, Words
from dlb_core.plain import plain
from dlb_core.table import aligned

PER_TOKEN = 3  # words shown for each token


def print_classes(console: Console, result: PipelineResult, top: int, strong: Sequence[Strong], files: Files) -> None:
    """A classification: labels, the text by words or the strongest pixels, the ledger."""
    explanation = result["explanation"]
    print_title(console, result["model"], explanation.mode, explanation.options)
    _print_labels(console, result)
    if "words" in result:
        (words,), (text,) = result["words"], result["texts"]
        console.print(heading("text", f"words that speak for {result['explained'][0]!r}, or against it"))
        _print_words(console, text, words, top, next(iter(ledgers(explanation).values())))
    for what, ledger in ledgers(explanation).items():
        print_ledger(console, what, ledger)
    print_experts(console, routed(explanation))
    if strong:
        print_strongest(console, strong)
    print_files(console, files)


def print_text(console: Console, result: PipelineResult, tokens: Sequence[Written], top: int, files: Files) -> None:
    """A generation: what was written, each token with its strongest words of the prompt, the prompt's words."""
    info = result["explanation"]
    print_title(console, result["model"], info.mode, info.options)
    prompt, generated = result["texts"][0], result["generated"][0]
    console.print(heading("generated", f"{info.tokens.shape[1]} tokens"))
    console.print(Text.assemble((plain(prompt, keep="\n"), "dim"), (plain(generated, keep="\n"), "bold")))
    console.print()
    rows = [_token_row(token) for token in tokens]
    columns = ("", "token", "probability", "prompt", "written before", "strongest words of the prompt")
    show(
        console,
        heading("tokens", "each with its share from the prompt and from what was written before it"),
        table(columns, rows, right=("", "probability", "prompt", "written before")),
    )
    books = summed([token.ledger for token in tokens])
    console.print(heading("prompt", "words by what they gave to all tokens together"))
    _print_words(console, prompt, prompt_words(tokens), top, books)
    print_ledger(console, "ledger of all tokens", books)
    print_files(console, files)


def _print_labels(console: Console, result: PipelineResult) -> None:
    if "values" in result:
        show(console, heading("prediction", f"{result['values'][0]}"))
        return
    explained, (probabilities,) = result["explained"][0], result["probabilities"]
    best = sorted(probabilities.items(), key=lambda item: -item[1])
    shown = best[:CLASSES] + [item for item in best[CLASSES:] if item[0] == explained]
    rows = [
        [label, f"{100 * p:.2f} %", bar(p, Text("explained", "bold") if label == explained else "")]
        for label, p in shown
    ]
    if explained not in probabilities:
        rows.append(["", "", Text(f"explained: {plain(explained)}", "bold")])
    show(
        console,
        heading("prediction", f"{len(best)} classes"),
        table(("label", "probability", ""), rows, right=("probability",)),
    )


def _print_words(console: Console, text: str, words: Words, top: int, ledger: Ledger) -> None:
    """The text in colours; its strongest words, the others and the special tokens in a line each, and their sum."""
    shown = replace(words.coloured(texts=(text,)), below=())
    colours = console.color_system is not None and not console.no_color
    console.print(shown if colours else Text(shown.inline()))
    console.print()
    strong = words.strongest(top)
    named = [(word.text, word.relevance) for word in strong]
    if len(words) > len(strong):
        rest = math.fsum(word.relevance for word in words) - math.fsum(units for _, units in named)
        named.append((f"... {len(words) - len(strong)} more words", rest))
    if words.special:
        names = " ".join(dict.fromkeys(word.text for word in words.special))
        named.append((f"special tokens: {names}", math.fsum(word.relevance for word in words.special)))
    named.append(("= sum", words.total))
    units = aligned([units for _, units in named], sign="+")
    rows = [[name, told, _share(ledger.share(r))] for (name, r), told in zip(named, units, strict=True)]
    columns = ("word", "relevance", "share")
    show(console, heading("strongest words"), table(columns, rows, right=("relevance", "share"), total=True))


def _token_row(token: Written) -> list[Any]:
    prompt = token.prompt
    own = [word for word in token.words if word.text_index != 0]
    best = sorted(prompt, key=lambda word: -abs(word.relevance))[:PER_TOKEN]
    told = ", ".join(f"{word.text} {_share(token.share([word]), '+')}" for word in best if word.relevance)
    probability = f"{100 * token.probability:.2f} %"
    text = token.text.replace("\n", "\\n")
    return [token.step + 1, text, probability, _share(token.share(prompt)), _share(token.share(own)), told]


def _share(value: float, sign: str = "") -> str:
    return f"{round(value, 2) + 0.0:{sign}.2f} %"  # + 0.0: no minus before a zero
