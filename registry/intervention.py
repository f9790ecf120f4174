"""What makes a function an experiment.

    @intervention(over={"head": "n_heads"})
    def heads(lm, pair, layer, head, alpha=1.0):
        \"""One line: the help, and what the report calls the experiment.\"""
        ...
        return logits                    # [1, vocabulary]

    heads.options                        # {"head": ALL, "alpha": 1.0}
    heads(lm, pair, layer, head=3)       # its function, which other experiments may call

A file of `interventions/` and a notebook cell are held to the same rules.
"""

import ast
import enum
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from errors import UserError
from pairs import Clip, Pair, PairSample
from registry.sources import imported, parsed
from runs.columns import reserved

FIRST = ("lm", "pair", "layer")
PLAIN = (bool, int, float, str)
# (the main experiment's pairs, all clips) -> the pairs that a control runs on
PairMaker = Callable[[PairSample, Sequence[Clip]], Sequence[Pair]]


class All(enum.Enum):
    """The type of `ALL`: an option runs over all values that the model has."""

    ALL = "all"

    def __str__(self) -> str:
        return self.value


ALL = All.ALL


@dataclass(frozen=True, eq=False)
class Intervention:
    """One experiment: `run(lm, pair, layer, **options)` gives the readout `[1, vocabulary]` of its last trace.

    `over` names options without a default that run over a number that the model has (`{"head": "n_heads"}`), or that
    another option of the experiment gives (`{"part": "slices"}`), `least` the smallest value of an option (`{"k": 1}`);
    `silent` experiments may leave every stream as it is.
    """

    name: str
    doc: str
    control: bool
    run: Callable[..., Any]
    pairs: PairMaker | None = None
    over: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False
    least: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.run(*args, **options)

    @property
    def options(self) -> dict[str, Any]:
        """The parameters after `lm, pair, layer` with their defaults; `ALL` for one in `over`."""
        return _function_options(self.run, self.over, self.least)[0]

    @property
    def choices(self) -> dict[str, tuple]:
        """The values that an option takes, for those that are annotated with `Literal`."""
        return _function_options(self.run, self.over, self.least)[1]

    @property
    def function(self) -> FunctionType:
        """What is written under all decorators."""
        return inspect.unwrap(self.run)

    def code_hash(self) -> str:
        """sha256 of the code that it runs, whatever the comments and docstrings.

        That is its file, or the function alone for one in a notebook, and all files of its folder and of
        `interventions/` that are imported from there, directly or not.
        """
        path = Path(inspect.getsourcefile(self.function) or "").resolve()
        is_file = path.is_file()
        tree = parsed(path) if is_file else ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        trees = sorted(imported(path, tree).items())
        code = "\n".join(ast.dump(_without_docstrings(tree)) for tree in [tree, *(tree for _, tree in trees)])
        return hashlib.sha256(code.encode(errors="surrogatepass")).hexdigest()


def intervention(
    run: Callable[..., Any] | None = None,
    *,
    control: bool = False,
    pairs: PairMaker | None = None,
    over: Mapping[str, str] | None = None,
    silent: bool = False,
    least: Mapping[str, float] | None = None,
) -> Any:
    """Make a function an experiment; `UserError` where its parameters are not `lm, pair, layer` and then options.

    `pairs` turns the main experiment's pairs into the control's own; `over`, `silent` and `least` are those of
    `Intervention`.
    """

    def decorate(function: Callable[..., Any]) -> Intervention:
        _function_options(function, over or {}, least or {})
        name, doc = command_name(function.__name__), inspect.getdoc(function) or ""
        return Intervention(name, doc, control, function, pairs, dict(over or {}), silent, dict(least or {}))

    return decorate(run) if run else decorate


def command_name(name: str) -> str:
    """An experiment's name as it is shown, for either spelling: `my-idea` for `my_idea`."""
    return name.replace("_", "-")


def checked_options(
    where: str,
    name: str,
    parameters: Sequence[str],
    defaults: Mapping[str, Any],
    over: Mapping[str, str],
    least: Mapping[str, float],
    annotations: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, tuple]]:
    """The options of a function with their defaults, and the choices of those that have some.

    `parameters` are all names of its signature in order, `*args` and `**kwargs` with their stars. Of `annotations`,
    plain types and `Literal` count. `UserError`, beginning with `where`, for what cannot be an option.
    """
    options = list(parameters[len(FIRST) :])
    missing = [option for option in options if option not in defaults and option not in over]
    if tuple(parameters[: len(FIRST)]) != FIRST or missing:
        takes = f"{', '.join(missing)} has none" if missing else f"it takes ({', '.join(parameters)})"
        hidden = "; a decorator between @intervention and the function must use functools.wraps"
        raise UserError(
            f"{where}: {name} must take (lm, pair, layer) and then options with defaults, as in "
            f"def {name}(lm, pair, layer, alpha=1.0); {takes}{hidden if '*args' in parameters else ''}"
        )
    found, choices = {}, {}
    for option in options:
        what, default = f"{where}: the option {option} of {name}", defaults.get(option, ALL)
        _check_option(what, option, default)
        choices[option] = _choices(what, default, annotations.get(option))
        # A whole number is a default of an option that takes any number.
        found[option] = float(default) if annotations.get(option) is float and default is not ALL else default
    for option, number in over.items():
        if option not in options or not isinstance(number, str) or not number.isidentifier():
            raise UserError(
                f"{where}: over= must give for an option of {name} the number of its values, as in "
                f'over={{"head": "n_heads"}}; it has {option!r}: {number!r}'
            )
        if option in defaults:
            raise UserError(
                f"{where}: {option} of {name} is in over=, so it runs over all its values, but has a default; drop "
                f"the default, as in def {name}(lm, pair, layer, {option})"
            )
    for option, value in least.items():
        default = found.get(option)
        if not all(type(number) in (int, float) for number in (default, value)) or default < value:
            raise UserError(f"{where}: least= gives {option} {value!r}; {name} has no option whose default is as large")
    return found, {option: chosen for option, chosen in choices.items() if chosen}


def _check_option(what: str, option: str, default: Any) -> None:
    if option in reserved():
        raise UserError(f"{what} has the name of a column of the records, or of a table made from them; rename it")
    if option == "alpha" and (type(default) not in (int, float) or not 0 < default <= 1):
        raise UserError(f"{what} is the dose; its default must be a number in (0, 1], as in alpha=1.0")
    plain = default is ALL or type(default) in PLAIN
    if not plain or (isinstance(default, float) and not math.isfinite(default)):
        raise UserError(
            f"{what} must have one plain value as its default (a number, text, True or False), not {default!r}; "
            "several are given when it runs"
        )
    if isinstance(default, str) and not default.isprintable():
        raise UserError(f"{what} has the default {default!r}; write it without control characters")


def _choices(what: str, default: Any, annotation: Any) -> tuple:
    """The values of a `Literal`; `UserError` where the default is none of them, or not of an annotated plain type."""
    choices = literals(annotation)
    kinds = {type(choice) for choice in choices} or {kind for kind in PLAIN if annotation is kind}
    if choices and (len(kinds) > 1 or not kinds <= set(PLAIN)):
        raise UserError(f"{what} has choices of several types; write numbers alone, or text alone")
    if any(isinstance(choice, str) and (not choice.isprintable() or "," in choice) for choice in choices):
        raise UserError(f"{what} has a choice with a comma or a control character in it; write another one")
    of_its_kind = type(default) in kinds or (type(default) is int and annotation is float)
    if kinds and not (kinds == {int} if default is ALL else of_its_kind):
        raise UserError(f"{what} is annotated as {kinds.pop().__name__}; its values are not, as {default!r}")
    if choices and default is not ALL and default not in choices:
        raise UserError(f"{what} has the default {default!r}, which is none of its choices {list_of(choices)}")
    return choices


def literals(annotation: Any) -> tuple:
    """The values of a `Literal`, also of one in `Annotated`, `Optional` or a union of several; () for anything else."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return parts
    if origin is Annotated:
        return literals(parts[0])
    if origin in (Union, UnionType):
        each = [literals(part) for part in parts if part is not NoneType]
        return tuple(chain.from_iterable(each)) if all(each) else ()
    return ()


def list_of(choices: Sequence[Any]) -> str:
    """Choices as they are offered in a message."""
    return ", ".join(map(str, choices))


def _function_options(
    function: Callable[..., Any], over: Mapping[str, str], least: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, tuple]]:
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain) or not plain.__name__.isidentifier():
        what = " ".join(repr(plain).split())[:80]
        raise UserError(f"@intervention stands before a function, as in def f(lm, pair, layer); {what} is none")
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception:  # an annotation in quotes may name anything
        parameters = inspect.signature(function).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    annotations = {p.name: p.annotation for p in parameters}
    where = f"{plain.__code__.co_filename}:{plain.__code__.co_firstlineno}"
    return checked_options(where, function.__name__, names, defaults, over, least, annotations)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree
