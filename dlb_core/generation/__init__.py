"""Text generation: transformers decodes, and one pass over the text explains the tokens that it chose.

`sampler.py` is the front end, `decoding.py` calls transformers, `text.py` lays a decoded text out for one forward pass,
`tokens.py` takes relevance of chosen tokens back, `result.py` is what comes out.
"""

from dlb_core.generation.result import GenerationExplanation
from dlb_core.generation.sampler import DLBAutoSampler

__all__ = ["DLBAutoSampler", "GenerationExplanation"]
