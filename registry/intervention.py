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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError
from pairs import Clip, Pair, PairSample

FOLDER = Path(__file__).resolve().parent.parent / "interventions"
FIRST = ("lm", "pair", "layer")
# A swept option is a column of the records and of the tables made from them; these columns are there already.
RESERVED = frozenset(
    """
    pair_id clip_a clip_b layer site target pred_base pred_patch eligible flip_to_target flip_from_base
    delta_logit_target logits_base logits_patch logits_donor len_a len_b n_patched patch_alpha patched_from
    semantic_label_b prosody_label_b label_mass_base label_mass_patch stream_shift
    n_pairs eligible_count flip_to_target_rate flip_from_base_rate delta_logit_target_mean
    donor_is_target to_donor_semantic to_donor_prosody margin_patch recovery kl_to_donor
    """.split()
)
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

    `over` names options that run over a number that the model has (`{"head": "n_heads"}`), or that another option of
    the experiment gives (`{"part": "slices"}`), `least` the smallest value of an option (`{"k": 1}`); `silent`
    experiments may leave every stream as it is.
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
        """The parameters after `lm, pair, layer` with their defaults; `ALL` for one in `over` that has none."""
        return _function_options(self.run, self.over, self.least)

    def code_hash(self) -> str:
        """sha256 of the code that it runs, whatever the comments and docstrings.

        That is its file, or the function alone for one in a notebook, and the files of the experiments that it imports.
        """
        path = Path(inspect.getsourcefile(self.run) or "")
        is_file = path.is_file()
        source = path.read_text(encoding="utf-8") if is_file else textwrap.dedent(inspect.getsource(self.run))
        code = "\n".join(ast.dump(_without_docstrings(tree)) for tree in _with_imports(ast.parse(source)))
        return hashlib.sha256(code.encode()).hexdigest()


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
) -> dict[str, Any]:
    """The options of a function and their defaults; `UserError`, beginning with `where`, for what cannot be one.

    `parameters` are all names of its signature in order, `*args` and `**kwargs` with their stars.
    """
    options = list(parameters[len(FIRST) :])
    missing = [option for option in options if option not in defaults and option not in over]
    if tuple(parameters[: len(FIRST)]) != FIRST or missing:
        takes = f"{', '.join(missing)} has none" if missing else f"it takes ({', '.join(parameters)})"
        raise UserError(
            f"{where}: {name} must take (lm, pair, layer) and then options with defaults, as in "
            f"def {name}(lm, pair, layer, alpha=1.0); {takes}"
        )
    for option in options:
        _check_option(f"{where}: the option {option} of {name}", option, defaults.get(option, ALL))
    for option, number in over.items():
        if option not in options or not isinstance(number, str) or not number.isidentifier():
            raise UserError(
                f"{where}: over= must give for an option of {name} the number of its values, as in "
                f'over={{"head": "n_heads"}}; it has {option!r}: {number!r}'
            )
    for option, value in least.items():
        default = defaults.get(option) if option in options else None
        if not all(type(number) in (int, float) for number in (default, value)) or default < value:
            raise UserError(f"{where}: least= gives {option} {value!r}; {name} has no option whose default is as large")
    return {option: defaults.get(option, ALL) for option in options}


def _check_option(what: str, option: str, default: Any) -> None:
    if option in RESERVED:
        raise UserError(f"{what} has the name of a column of the records; rename it")
    if option == "alpha" and (type(default) not in (int, float) or not 0 < default <= 1):
        raise UserError(f"{what} is the dose; its default must be a number in (0, 1], as in alpha=1.0")
    plain = default is ALL or type(default) in (bool, int, float, str)
    if not plain or (isinstance(default, float) and not math.isfinite(default)):
        raise UserError(
            f"{what} must have one plain value as its default (a number, text, True or False), not {default!r}; "
            "several are given when it runs"
        )


def _function_options(
    function: Callable[..., Any], over: Mapping[str, str], least: Mapping[str, float]
) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    code = function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    return checked_options(where, function.__name__, names, defaults, over, least)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def _with_imports(tree: ast.Module) -> list[ast.Module]:
    """A file's tree first, then that of every file of `interventions/` that it imports, directly or not."""
    trees = [tree]
    imported: dict[Path, ast.Module] = {}
    for known in trees:  # which grows
        for path in _imported_files(known):
            if path not in imported:
                imported[path] = ast.parse(path.read_text(encoding="utf-8"))
                trees.append(imported[path])
    return [tree, *(imported[path] for path in sorted(imported))]


def _imported_files(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from interventions import patch` names a file as well as `from interventions.patch import patch` does.
            module = ".".join(filter(None, ["interventions" * bool(node.level), node.module]))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, _, stem = name.partition(".")
            path = FOLDER / f"{stem.partition('.')[0]}.py"
            if package == "interventions" and stem and path.is_file():
                yield path
