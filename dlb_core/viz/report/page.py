"""The document as one HTML file: data, styles and scripts inside it, and a policy that lets nothing else in.

The data is JSON in a block that no browser runs; what a user named (tokens, classes, modules) comes into the page as
text alone. Without scripts the ledgers are there as plain tables.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlb_core.viz.report.graph_page import graph_script, graph_style

HERE = Path(__file__).parent
STYLES = ("report.css",)
SCRIPTS = (
    "dom.js",
    "numbers.js",
    "scale.js",
    "state.js",
    "bars.js",
    "image.js",
    "tokens.js",
    "features.js",
    "series.js",
    "inputs.js",
    "prediction.js",
    "generation.js",
    "ledger.js",
    "layers.js",
    "experts.js",
    "graph_section.js",
    "main.js",
)
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # json writes U+2028 and U+2029 escaped as it is


def page(data: Mapping[str, Any]) -> str:
    """The whole file."""
    style = "\n".join([*map(_read, STYLES), graph_style()])
    script = "\n".join([graph_script(), "(() => {", '"use strict";', *map(_read, SCRIPTS), "})();"])
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = _text(" · ".join(filter(None, [data["model"], "relevance report"])))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{title}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            f"<noscript>{''.join(_without_scripts(data))}</noscript>",
            f'<script type="application/json" id="data">{_json(data)}</script>',
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _read(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode('ascii')}'"


def _json(data: Mapping[str, Any]) -> str:
    """Data that can end no script block."""
    written = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character, escape in _UNSAFE.items():
        written = written.replace(character, escape)
    return written


def _text(text: Any) -> str:
    """What a page may hold as text; half a surrogate pair, which no file can, becomes a question mark."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def _without_scripts(data: Mapping[str, Any]) -> Iterator[str]:
    """The ledgers as plain tables."""
    yield "<h1>Relevance report</h1><p>This page draws with scripts, which are off here. Its numbers, as tables:</p>"
    for column in data["columns"]:
        for target, books in zip(data["targets"], column["books"], strict=True):
            for book in books:
                name = ", ".join(filter(None, [f"mode {column['mode']}", target, book["side"]]))
                yield f"<table><caption>Ledger ({_text(name)})</caption>"
                yield "<tr><th>account</th><th>units</th><th>share</th></tr>"
                for line in [
                    *book["lines"],
                    {"account": "= seed", "units": book["seed"], "share": book["whole"]},
                ]:
                    yield f"<tr><td>{_text(line['account'])}</td><td>{_text(line['units'])}</td>"
                    yield f"<td>{_text(line['share'])}</td></tr>"
                yield "</table>"
