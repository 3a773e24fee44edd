"""Target: the supervisor that `module:attribute` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from datamesh.errors import ConfigurationError, DatameshError
from datamesh.supervise.supervisor import Supervisor

_DEFAULT_ATTRIBUTE = "supervisor"


def supervisor_of(target: str) -> Supervisor:
    """Import what `target` names: a `Supervisor`, or something to call without arguments that returns one.

    Args:
        target: `package.module:attribute`; `:supervisor` may be left out. The current directory can be imported from.

    Raises:
        ConfigurationError: There is no such module or attribute, the module cannot be imported, or it is no supervisor.
    """
    module_name, _, attribute = target.partition(":")
    found = _attribute(target, _imported(target, module_name), attribute or _DEFAULT_ATTRIBUTE)
    if not isinstance(found, Supervisor) and callable(found):
        found = _called(target, found)
    if not isinstance(found, Supervisor):
        raise ConfigurationError(
            f"{target} is a {type(found).__name__}: name a Supervisor, or a function without arguments that returns one"
        )
    return found


def _imported(target: str, name: str) -> object:
    if not name or name.endswith(".py") or "/" in name:
        raise ConfigurationError(f"{target!r} names no module: write package.module:supervisor, with dots")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(f"there is no module {error.name!r} in {here} or on the Python path") from error
        raise ConfigurationError(f"module {name!r} cannot be imported: {error}") from error
    except DatameshError:
        raise
    except Exception as error:
        raise ConfigurationError(f"module {name!r} cannot be imported: {_problem(error)}") from error


def _called(target: str, factory: Callable[[], object]) -> object:
    try:
        return factory()
    except DatameshError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{target} cannot be called without arguments: {_problem(error)}") from error


def _problem(error: Exception) -> str:
    """With its place: the mistake is in the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def _attribute(target: str, module: object, path: str) -> object:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            there = [name for name, value in vars(module).items() if isinstance(value, Supervisor)]
            hint = f"it has the supervisor {', '.join(there)}" if there else "it has no supervisor"
            raise ConfigurationError(f"{target}: there is no {path!r} in the module; {hint}")
        found = getattr(found, name)
    return found
