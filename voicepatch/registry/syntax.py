"""What a file declares, read from its text, so that `--help` imports nothing.

experiments_of(path)             # an Entry for each function with @intervention
"""

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

EMPTY = inspect.Parameter.empty
# An annotation is evaluated where it consists of these alone, under these names.
NODES = (ast.Name, ast.Load, ast.Constant, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr, ast.UnaryOp, ast.USub)
NAMES = {kind.__name__: kind for kind in TYPES} | {n: getattr(typing, n) for n in ("Literal", "Optional", "Union")}


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
    assigned = {
        node.targets[0].id: node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
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
            parameters = _parameters(where, node.args, assigned)
            declared = declare(where, node.name, doc, parameters, keywords)
            yield Entry(path=path, line=node.lineno, attribute=node.name, **declared)


def _parameters(where: str, args: ast.arguments, assigned: Mapping[str, ast.expr]) -> list[inspect.Parameter]:
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    kinds = inspect.Parameter
    each: list[tuple[ast.arg | None, ast.expr | None, Any]] = [
        *((arg, default, kinds.POSITIONAL_OR_KEYWORD) for arg, default in zip(positional, defaults, strict=True)),
        (args.vararg, None, kinds.VAR_POSITIONAL),
        *((arg, default, kinds.KEYWORD_ONLY) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)),
        (args.kwarg, None, kinds.VAR_KEYWORD),
    ]
    found = []
    for arg, default, kind in each:
        if arg is not None:
            value = EMPTY if default is None else _literal(where, f"the default of {arg.arg}", default)
            annotation = EMPTY if arg.annotation is None else _annotation(arg.annotation, assigned)
            found.append(inspect.Parameter(arg.arg, kind, default=value, annotation=annotation))
    return found


def _literal(where: str, what: str, value: ast.expr) -> Any:
    """The value of an expression that is written out."""
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        raise UserError(f"{where}: {what} must be a plain value, written out, not {ast.unparse(value)}") from None


def _annotation(node: ast.expr, assigned: Mapping[str, ast.expr]) -> Any:
    """A plain type or a `Literal`, also in quotes or under a name that the file assigns; None for anything else."""
    try:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value.strip(), mode="eval").body
        node = _Simplified().visit(node)
        if not all(isinstance(part, NODES) for part in ast.walk(node)):
            return None
        used = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in assigned]
        others = {name: value for name, value in assigned.items() if name not in used}
        names = NAMES | {name: _annotation(assigned[name], others) for name in used}
        code = compile(ast.fix_missing_locations(ast.Expression(node)), "annotation", "eval")
        return eval(code, {"__builtins__": {}}, names)  # of types and literals alone
    except (SyntaxError, ValueError, TypeError, NameError):
        return None


class _Simplified(ast.NodeTransformer):
    """`typing.Literal` becomes `Literal`, and `Annotated[X, ...]` becomes `X`."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return ast.Name(node.attr, ast.Load())

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if called_name(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)
