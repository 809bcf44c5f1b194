"""Lets libraries be imported that are not installed, so that what does not use them runs.

For gpu.py, on machines that have torch and little else. To import this module is enough.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORTED = ("PIL", "cv2", "lmdb", "safetensors", "tifffile")
"""What gancolor imports beside torch and NumPy, also where a training step does not use it."""
NEEDED = {
    "photographs": ("PIL", "cv2", "tifffile", "click", "tqdm", "safetensors", "lmdb"),
    "films": ("PIL", "cv2", "tifffile", "safetensors", "av", "lmdb"),
}
"""What parts of gpu.py do use."""


class _Absent(type):
    """Of a name of a library that is not there: it may be named, never used."""

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        raise ImportError(f"{cls.__name__} is not installed")

    def __getattr__(cls, name: str) -> Any:
        return _absent(f"{cls.__name__}.{name}", name)


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _absent(f"{self.__name__}.{name}", name)


def _absent(whole: str, name: str) -> Any:
    if name.startswith("__"):  # what Python itself asks for
        raise AttributeError(name)
    return _Absent(whole, (Exception,), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets libraries be imported that are not there, so that what does not use them runs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in self.names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def missing(names: Sequence[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


ABSENT = missing(sorted({*IMPORTED, *(name for names in NEEDED.values() for name in names)}))
"""What this Python has not, of all that."""

sys.meta_path.append(StandIns([name for name in IMPORTED if name in ABSENT]))
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))
