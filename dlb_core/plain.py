"""Text from models, files and users as it may be shown: what would steer a terminal is spelled out."""

from __future__ import annotations

#: They join letters of one word (emoji, Indic and Arabic scripts) and steer nothing.
JOINERS = "\u200c\u200d"


def plain(text: str, *, keep: str = "") -> str:
    r"""Text without control characters, escape sequences and marks of direction: each is spelled out as ``\x1b``.

    keep: characters that may stay although they do not print.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
