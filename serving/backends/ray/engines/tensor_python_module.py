"""Loads a python-backend ``model.py`` with files of its own beside it; used by tensor_python.

A model imports ``triton_python_backend_utils``, which is no package of ours, and modules from its own folders, whose
names may be anybody's. So each instance is a package of its own, and the ``import`` of its modules looks there first.
The one invariant: nothing is put under a name that other code of the process may import.
"""

import builtins
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

UTILS: Final = "triton_python_backend_utils"
_PREFIX: Final = "_reelmesh_model_"
_numbers = itertools.count()


class ModelModules:
    """The modules of one instance of one model.

    Args:
        folders: where they lie: the version folder, then the model's.
        utils: what ``import triton_python_backend_utils`` gives them.
    """

    def __init__(self, folders: Sequence[Path], utils: ModuleType) -> None:
        self._package = f"{_PREFIX}{next(_numbers)}"
        self._folders = [str(folder) for folder in folders]
        self._utils = utils
        self._builtins = {**vars(builtins), "__import__": self._import}
        package = ModuleType(self._package)
        package.__path__ = self._folders
        sys.modules[self._package] = package
        _FINDER.packages[self._package] = self._builtins

    def load(self, file: Path) -> ModuleType:
        """Run the model's file as a module; raises whatever it raises."""
        if file.parent == Path(self._folders[0]) and file.stem.isidentifier():
            return importlib.import_module(f"{self._package}.{file.stem}")
        loader = _Loader(f"{self._package}.model", str(file), self._builtins)
        spec = ModuleSpec(loader.name, loader, origin=str(file))
        module = importlib.util.module_from_spec(spec)
        sys.modules[loader.name] = module
        loader.exec_module(module)
        return module

    def close(self) -> None:
        """Forget the modules."""
        _FINDER.packages.pop(self._package, None)
        for name in [name for name in list(sys.modules) if name.partition(".")[0] == self._package]:
            del sys.modules[name]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:  # noqa: ANN401  modules
        if name == UTILS:
            return self._utils
        top = name.partition(".")[0]
        if level or not self._is_own(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = importlib.import_module(f"{self._package}.{name}")
        if not fromlist:
            return sys.modules[f"{self._package}.{top}"]
        return builtins.__import__(module.__name__, globals, locals, fromlist, 0)

    def _is_own(self, top: str) -> bool:
        if f"{self._package}.{top}" in sys.modules:
            return True
        return any(
            (Path(folder) / f"{top}.py").is_file() or _is_package(Path(folder) / top) for folder in self._folders
        )


class _Loader(SourceFileLoader):
    """Runs a file with the model's own ``__import__``."""

    def __init__(self, name: str, path: str, own: dict[str, Any]) -> None:
        super().__init__(name, path)
        self._own = own

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        module.__dict__["__builtins__"] = self._own
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:  # noqa: ANN401  a buffer
        """Leaves no bytecode in the model repository, which need not be ours to write."""


class _Finder:
    """Finds modules of models' packages, and of nothing else."""

    def __init__(self) -> None:
        self.packages: dict[str, dict[str, Any]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The protocol of ``sys.meta_path``."""
        own = self.packages.get(fullname.partition(".")[0])
        spec = PathFinder.find_spec(fullname, path, target) if own is not None else None
        if spec is not None and own is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path, own)
        return spec


def _is_package(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.py"))


_FINDER: Final = _Finder()
sys.meta_path.insert(0, _FINDER)
