"""PNG by hand, for pages that hold their pictures: eight bits, RGB, no library."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A picture [H, W, 3] as a file of PNG."""
    height, width, _ = pixels.shape
    before = np.pad(pixels[:, :-1], ((0, 0), (1, 0), (0, 0)))
    rows = (pixels - before).reshape(height, 3 * width)  # modulo 256: PNG's filter 1, "Sub"
    filtered = np.pad(rows, ((0, 0), (1, 0)), constant_values=1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def data_uri(file: bytes) -> str:
    """A file of PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(file).decode()
