"""From a source to a model that can be explained, whole: loading is transformers' and torchvision's.

Nothing here runs code that comes with a checkpoint (`trust_remote_code` is never given), and weights are safetensors or
read with `weights_only=True`. A head that the checkpoint does not hold is refused: it would be random.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from dlb_core.errors import ModelLoadError
from dlb_core.pipeline.config import PipelineConfig
from dlb_core.pipeline.registry import IMAGE, TEXT, TOKEN, WRITE, Source

#: task -> transformers' class for it
CLASSES = {
    TEXT: "AutoModelForSequenceClassification",
    TOKEN: "AutoModelForTokenClassification",
    IMAGE: "AutoModelForImageClassification",
    WRITE: "AutoModelForCausalLM",
}
TO_A_FOLDER = (
    "download it where there is a network (`hf download {name} --local-dir FOLDER`, or save_pretrained(FOLDER)) and "
    "give model_name=FOLDER"
)
FAR = 10**9  # tokenizers that know no limit say a huge number


@dataclass(frozen=True)
class Loaded:
    """A model with what turns a user's input into its own.

    labels: the names of its classes. tokenizer: for text. images: from pictures to a tensor [B, C, H, W], and `undo`
    back to 0..1, to show it. most: how many tokens it reads. problem: what transformers says its outputs are:
    "regression" (numbers), "multi_label_classification" (classes that do not exclude each other) or None.
    """

    model: nn.Module
    name: str
    labels: tuple[str, ...] = ()
    tokenizer: Any = None
    images: Callable[[Sequence[Any]], Tensor] | None = None
    undo: Callable[[Tensor], Tensor] | None = None
    most: int | None = None
    problem: str | None = None


def load(source: Source, task: str, config: PipelineConfig) -> Loaded:
    """The model of a source with the head for a task, in eval mode. Raises `ModelLoadError`."""
    device = _device(config.device)
    with torch.random.fork_rng(devices=[]):  # constructing draws random weights before the real ones are read
        if source.kind == "torchvision":
            if task != IMAGE:
                raise ModelLoadError(f"{source.where} is a model of torchvision, which is for images, not for {task}")
            from dlb_core.pipeline.vision import load_torchvision

            loaded = load_torchvision(source, config)
        else:
            if config.weights is not None:
                raise ModelLoadError(
                    f"weights= is a file for a torchvision constructor; {source.where} brings its own weights"
                )
            loaded = _load_transformers(source, task, config)
    loaded.model.to(device).eval()
    return loaded


def _load_transformers(source: Source, task: str, config: PipelineConfig) -> Loaded:
    try:
        import transformers
    except ImportError as error:
        raise ModelLoadError('transformers is missing: pip install "dlb-core[text]"') from error
    asked = {"revision": config.revision} if config.revision is not None else {}
    offline = config.local_files_only or source.folder or not _reachable()
    shared = {"local_files_only": offline, "trust_remote_code": False, **asked}
    settings = _attempt(source, "its config", transformers.AutoConfig.from_pretrained, **shared)
    kind = CLASSES[task]
    if task == WRITE:
        kind = "AutoModelForSeq2SeqLM" if settings.is_encoder_decoder else kind
        _check_writes(source, settings)
    model, info = _attempt(
        source,
        "the model",
        getattr(transformers, kind).from_pretrained,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported like what is missing, and refused with it
        dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
        **shared,
    )
    random = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if random:
        more = f" and {len(random) - 3} more" if len(random) > 3 else ""
        raise ModelLoadError(
            f"{source.where} was not trained for {task}: {', '.join(random[:3])}{more} would be random numbers, and "
            "explaining those is worse than nothing; choose a checkpoint that was fine-tuned for it"
        )
    names = tuple(str(settings.id2label[i]) for i in sorted(settings.id2label)) if task != WRITE else ()
    nameless = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    given = config.labels or (source.labels if nameless else ())
    if given and len(given) != len(names):
        raise ModelLoadError(f"{len(given)} labels for a model of {len(names)} classes")
    loaded = Loaded(model, source.where, given or names, problem=getattr(settings, "problem_type", None))
    if task == IMAGE:
        from dlb_core.pipeline.vision import from_processor

        made = _attempt(source, "its image processor", transformers.AutoImageProcessor.from_pretrained, **shared)
        return from_processor(loaded, made)
    tokenizer = _attempt(source, "its tokenizer", transformers.AutoTokenizer.from_pretrained, **shared)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one where it finds no files
        raise ModelLoadError(f"there is no tokenizer in {source.where}: save it there with tokenizer.save_pretrained")
    return dataclasses.replace(loaded, tokenizer=tokenizer, most=_most(settings, tokenizer))


def _attempt(source: Source, what: str, read: Callable[..., Any], **options: Any) -> Any:
    """What transformers reads, or one sentence on why it does not."""
    try:
        return read(source.where, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:  # what from_pretrained raises, by kind of trouble
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if source.folder or not options["local_files_only"] or not isinstance(error, OSError):
            raise ModelLoadError(f"{source.hint}{what} cannot be read from {source.where}: {first}") from error
        advice = source.hint + TO_A_FOLDER.format(name=source.where)
        raise ModelLoadError(f"{source.where} is not on this machine and the hub is out of reach: {advice}") from error


def _check_writes(source: Source, settings: Any) -> None:
    """A model that fills gaps has weights for every token, but none to write one after the other."""
    kinds = settings.architectures or []
    if (
        kinds
        and all(kind.endswith(("ForMaskedLM", "ForPreTraining", "Model")) for kind in kinds)
        and not any(kind.endswith("LMHeadModel") for kind in kinds)
    ):
        raise ModelLoadError(
            f"{source.where} is a {kinds[0]}, which was not trained to write the next token: choose a causal model"
        )


def _most(settings: Any, tokenizer: Any) -> int | None:
    limits = [getattr(settings, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    known = [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < FAR]
    return min(known, default=None)


def _reachable() -> bool:
    """Is there a hub to ask? A look at the name service is quick where its own retries take half a minute."""
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") and value for name, value in os.environ.items()):
        return True  # whoever asks for us knows
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)
    except OSError:
        return False
    return True


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch raises either, by kind of device
        raise ModelLoadError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
