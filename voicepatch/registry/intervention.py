"""What makes a function an experiment.

    @intervention(range_of={"head": "n_heads"})
    def heads(lm, pair, layer, head, alpha=1.0):
        \"""One line: the help, and the sentence of the report.\"""
        ...
        return logits                    # [1, vocabulary]

    heads.options["alpha"].default       # 1.0
    heads(lm, pair, layer, head=3)       # calls the function; other experiments may do so

The same rules hold for a file of `interventions/`, a plugin and a notebook cell.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import msgspec

from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.options import Option, options_of
from voicepatch.registry.sources import imported, parsed
from voicepatch.types.clip import Clip
from voicepatch.types.pair import Pair, PairSample
from voicepatch.types.properties import Properties, Rate

# (the main experiment's pairs, all clips) -> the pairs that an experiment runs on
PairMaker = Callable[[PairSample, Sequence[Clip]], Sequence[Pair]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Declared:
    """What the function and the keywords of `@intervention(...)` say of an experiment.

    Those that a run records are explained in `Properties`. Of the others:

    named_by_kind: its NAME in files ends with the kind of its pairs
    may_be_noop: it may leave every value as it is; for any other experiment that is an error
    expected: what a control must show, for the help of `control` and its verdict
    most_of_main: a control's curve must be below the main one, and its highest rate at most this share of that one's
    one_order: its readouts cannot be averaged over orders of the options, as log-probabilities
    """

    name: str
    doc: str
    options: Mapping[str, Option]
    control: bool = False
    main: bool = False
    named_by_kind: bool = True
    judged_by: Rate = "flip_to_target_rate"
    recipients: Literal["main", "own"] = "main"
    beside_main: bool = False
    must_change_nothing: bool = False
    may_be_noop: bool = False
    expected: str = ""
    most_of_main: float | None = None
    one_order: bool = False
    reads_only: bool = False
    approximate: bool = False
    by_layer: bool = True
    describes: str = ""
    figures: str = ""

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def text(self) -> str:
        """The docstring without its lines on options, which have their own help."""
        lines = [line for line in self.doc.splitlines() if line.strip().partition(":")[0] not in self.options]
        return "\n".join(lines).strip()

    def layers_called(self, n_layers: int, chosen: Sequence[int] | None) -> Sequence[int]:
        """The layers at which it is called: all of the model's for None; 0 alone where it has one row for all layers.

        `UserError` where it has one row for all layers and some are chosen.
        """
        if self.by_layer:
            return range(n_layers) if chosen is None else chosen
        if chosen is not None:
            raise UserError(f"--layers: {self.name} has one row for all layers; leave --layers out", BAD_USAGE)
        return (0,)

    def recorded(self) -> dict[str, Any]:
        """The properties that a run's configuration holds."""
        return {name: getattr(self, name) for name in Properties.__struct_fields__}


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervention(Declared):
    """One experiment: `run(lm, pair, layer, **options)` gives the readout `[1, vocabulary]` of its last trace.

    `pairs` makes its pairs from the main experiment's; None runs on these.
    """

    run: Callable[..., Any]
    pairs: PairMaker | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.run(*args, **options)

    @property
    def function(self) -> FunctionType:
        """The function under all decorators."""
        return inspect.unwrap(self.run)

    def code_hash(self) -> str:
        """sha256 of the code that it runs, without comments and docstrings.

        That is its file, or the function alone for one in a notebook, and all files of its folder and of
        `interventions/` that are imported from there, directly or not.
        """
        path = Path(inspect.getsourcefile(self.function) or "").resolve()
        is_file = path.is_file()
        tree = parsed(path) if is_file else ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        trees = [tree, *(tree for _, tree in sorted(imported(path, tree).items()))]
        code = "\n".join(ast.dump(_without_docstrings(tree)) for tree in trees)
        return hashlib.sha256(code.encode(errors="surrogatepass")).hexdigest()


KEYWORDS: dict[str, Any] = {field.name: field.type for field in fields(Declared) if field.default is not MISSING}
KEYWORDS |= {"range_of": dict, "minimum": dict}


def intervention(run: Callable[..., Any] | None = None, *, pairs: PairMaker | None = None, **keywords: Any) -> Any:
    """Make a function an experiment; `UserError` where its parameters are not `lm, pair, layer` and then options.

    `pairs(sample, clips)` turns the main experiment's pairs into its own. The other keywords are those of `Declared`,
    `range_of={"head": "n_heads"}` for options that run over a number of the model or of another option (then over some
    texts: `{"head": ("n_heads", "mlp")}`), and
    `minimum={"k": 1}` for the smallest value of an option. All are written as plain values, since files are parsed, not
    imported, for `--help`.
    """

    def decorate(function: Callable[..., Any]) -> Intervention:
        plain = inspect.unwrap(function)
        if not inspect.isfunction(plain) or not plain.__name__.isidentifier():
            what = " ".join(repr(plain).split())[:80]
            raise UserError(f"@intervention must stand before a function, as in def f(lm, pair, layer), not {what}")
        try:
            signature = inspect.signature(function, eval_str=True)
        except Exception:  # an annotation in quotes may name anything
            signature = inspect.signature(function)
        where = f"{plain.__code__.co_filename}:{plain.__code__.co_firstlineno}"
        parameters = list(signature.parameters.values())
        declared = declare(where, function.__name__, inspect.getdoc(function) or "", parameters, keywords)
        return Intervention(run=function, pairs=pairs, **declared)

    return decorate(run) if run else decorate


def declare(
    where: str, name: str, doc: str, parameters: Sequence[inspect.Parameter], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of `Declared` for a function; `UserError`, beginning with `where`, for an invalid keyword."""
    for keyword, value in keywords.items():
        if keyword not in KEYWORDS:
            raise UserError(f"{where}: @intervention takes pairs, {', '.join(KEYWORDS)}, not {keyword}")
        try:
            msgspec.convert(value, KEYWORDS[keyword])
        except msgspec.ValidationError as error:
            raise UserError(f"{where}: {keyword}= is {value!r}: {error}") from None
    fields_given = dict(keywords)
    ranges, minimum = fields_given.pop("range_of", {}), fields_given.pop("minimum", {})
    if not fields_given.get("describes"):
        fields_given["describes"] = " ".join(doc.partition("\n\n")[0].split())
    options = options_of(where, name, doc, parameters, ranges, minimum)
    return {"name": command_name(name), "doc": doc, "options": options, **fields_given}


def command_name(name: str) -> str:
    """An experiment's name on the command line, for either spelling: `my-idea` for `my_idea`."""
    return name.replace("_", "-")


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree
