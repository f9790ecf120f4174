"""What a file declares, read from its text, so that `--help` imports nothing.

experiments_of(path)             # an Entry for each function with @intervention
"""

import __future__

import ast
import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voicepatch.errors import UserError
from voicepatch.registry.intervention import Declared, declare
from voicepatch.registry.options import TYPES
from voicepatch.registry.plugins import called_name
from voicepatch.registry.sources import parsed

# The names that an annotation may use, besides those that the file gives to such annotations.
NAMES = {**vars(typing), **{kind.__name__: kind for kind in TYPES}, "typing": typing, "t": typing}


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry(Declared):
    """An experiment as the text of its file declares it; `attribute` is the name of its function."""

    path: Path
    line: int
    attribute: str

    @property
    def where(self) -> str:
        """File and line, as errors begin."""
        return f"{self.path}:{self.line}"


def experiments_of(path: Path) -> Iterator[Entry]:
    """The experiments of a file; `UserError` with file and line for one that is declared in a wrong way."""
    body = parsed(path).body
    names = dict(NAMES)
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.Name | ast.Attribute):
            names[ast.unparse(node.targets[0])] = _annotation(ast.unparse(node.value), names)
    for node in (node for node in body if isinstance(node, ast.FunctionDef)):
        for number, decorator in enumerate(node.decorator_list):
            if called_name(decorator) != "intervention":
                continue
            if number:
                raise UserError(
                    f"{path}:{decorator.lineno}: @intervention must be the outermost decorator of {node.name}; put "
                    "it above the others"
                )
            where, doc = f"{path}:{node.lineno}", ast.get_docstring(node) or ""
            given = {k.arg: k.value for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
            given.pop("pairs", None)
            keywords = {str(name): _literal(where, f"{name or '**'}=", value) for name, value in given.items()}
            declared = declare(where, node.name, doc, _parameters(where, node.args, names), keywords)
            yield Entry(path=path, line=node.lineno, attribute=node.name, **declared)


def _parameters(where: str, args: ast.arguments, names: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The parameters of a function, with their defaults and annotations as values."""
    positional = [*args.posonlyargs, *args.args]
    with_default = [*positional[len(positional) - len(args.defaults) :], *args.kwonlyargs]
    for arg, default in zip(with_default, [*args.defaults, *args.kw_defaults], strict=True):
        if default is not None:
            _literal(where, f"the default of {arg.arg}", default)
    text = f"def f({ast.unparse(args)}): pass"
    found: dict[str, Any] = {}
    exec(compile(text, where, "exec", flags=__future__.annotations.compiler_flag), {"__builtins__": {}}, found)
    parameters = inspect.signature(found["f"]).parameters.values()
    return [each.replace(annotation=_annotation(each.annotation, names)) for each in parameters]


def _literal(where: str, what: str, value: ast.expr) -> Any:
    """The value of an expression that is written out."""
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        raise UserError(f"{where}: {what} must be a plain value, written out, not {ast.unparse(value)}") from None


def _annotation(text: Any, names: Mapping[str, Any]) -> Any:
    """The type that an annotation names, also in quotes; None where it uses other names than these."""
    try:
        while isinstance(text, str):
            text = eval(text.strip(), {"__builtins__": {}}, names)
        return text
    except Exception:
        return None
