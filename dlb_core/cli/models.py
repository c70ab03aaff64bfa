"""From MODEL on the command line to a model: a factory in a module or file, or an exported program."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dlb_core.cli.failure import ModelError, UsageError
from dlb_core.errors import UntrustedFileError

FORMS = "give module:factory, path/to/file.py:factory or an exported program file.pt2"
NOT_THEIRS = ("importlib", "site-packages", str(Path(__file__).parent))


@dataclass(frozen=True)
class LoadedModel:
    """A model with the dtype and the device that its inputs need."""

    model: nn.Module | ExportedProgram
    dtype: torch.dtype
    device: torch.device


@contextlib.contextmanager
def user_code(folder: str) -> Iterator[None]:
    """The user's code finds its neighbours in `folder`, and what it prints does not end up among our results."""
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have taken it out
            sys.path.remove(folder)


def code_folder(spec: str) -> str:
    """Where the code behind MODEL finds its neighbours: the file's folder, or the current one."""
    path = spec.rpartition(":")[0]
    return str(Path(path).resolve().parent if path.endswith(".py") else Path.cwd())


def load_model(spec: str, *, trust: bool) -> LoadedModel:
    """The model that `spec` names, as its code made it.

    Raises `UntrustedFileError` for a .pt2 without `trust`, `UsageError` for a spec that leads nowhere, `ModelError`
    when the user's code fails.
    """
    if Path(spec).suffix.lower() == ".pt2":
        return _described(_load_program(Path(spec), trust))
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(f"MODEL is {spec!r}: {FORMS}")
    module = _module_from_file(Path(place)) if place.endswith(".py") else _module_by_name(place)
    try:
        found = attrgetter(name)(module)
    except AttributeError:
        raise UsageError(f"{place} has no {name!r}; it has: {_candidates(module)}") from None
    model = found if isinstance(found, nn.Module) else _call(found, spec)
    if not isinstance(model, (nn.Module, ExportedProgram)):
        raise UsageError(f"{spec} gives a {type(model).__name__}: it must be, or return, an nn.Module")
    return _described(model)


def _load_program(path: Path, trust: bool) -> ExportedProgram:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if not trust:
        raise UntrustedFileError(
            f"{path} is an exported program, and loading one can run code: "
            "give --trust if you know where the file comes from"
        )
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is no exported program, or it is truncated: write it with torch.export.save")
    log = logging.getLogger("torch.export")  # it logs a traceback for what we say in one line
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return torch.export.load(path)
    except Exception as error:  # torch raises a dozen unrelated types for a file that it cannot read
        raise UsageError(f"{path} cannot be read as an exported program: {_first_line(error)}") from error
    finally:
        log.setLevel(level)


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    # A name that no installed module has: a file called json.py must not become everybody's json.
    name = f"dlb_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported: {FORMS}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _their_failure(f"{path} failed while it was imported"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_by_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is no module: {FORMS}")
    with _their_failure(f"module {name} failed while it was imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise UsageError(f"there is no module {error.name!r} here or in this environment: {FORMS}") from None


def _call(factory: Any, spec: str) -> Any:
    if not callable(factory):
        raise UsageError(f"{spec} is a {type(factory).__name__}: it must be, or return, an nn.Module")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"{spec} cannot be called without arguments ({error}): name a function that can") from None
    except ValueError:
        pass  # a builtin that does not tell its signature: the call will judge
    with _their_failure(f"{spec} failed"):
        return factory()


@contextlib.contextmanager
def _their_failure(what: str) -> Iterator[None]:
    """Whatever the user's code raises, as one `ModelError` with the line that raised it."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a third party's code, as with packs
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(p in f.filename for p in NOT_THEIRS)]
        place = f"\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
        raise ModelError(f"{what}: {type(error).__name__}: {error}{place}") from error


def _candidates(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, nn.Module) or getattr(value, "__module__", None) == module.__name__)
    ]
    return ", ".join(sorted(own)[:20]) or "nothing that could be a model"


def _described(model: nn.Module | ExportedProgram) -> LoadedModel:
    if isinstance(model, ExportedProgram):
        tensors: list[Tensor] = [t for t in model.state_dict.values() if isinstance(t, Tensor)]
    else:
        tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    device = next((t.device for t in tensors), torch.device("cpu"))
    return LoadedModel(model, dtype, device)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
