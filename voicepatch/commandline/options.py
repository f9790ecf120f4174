"""The options that commands share, made from the declarations of the settings.

    @cli.command()
    @experiment_options
    def check(**options): ...            # every option that is not given is None

Imports neither torch nor pandas, so that help comes at once.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

from voicepatch.commandline.param_types import ParamType, option_type
from voicepatch.commandline.program import debug_option
from voicepatch.errors import BAD_USAGE, UserError
from voicepatch.registry.catalogue import catalogue
from voicepatch.registry.options import ALL, Option
from voicepatch.registry.syntax import Entry
from voicepatch.types.pair import KINDS
from voicepatch.types.setting import Setting, path
from voicepatch.types.settings import DECLARED, stored_name

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

CLIP_SETTINGS = ("model", "base", "data", "columns", "task", "texts", "where", "out", "seed")
PAIR_SETTINGS = (
    "only",
    "max_pairs",
    "same_speaker",
    "both_directions",
    "max_acoustic_distance",
)
CHECK_SETTINGS = (
    "layers",
    "device",
    "dtype",
    "random_weights",
    "engine",
    "max_rows",
    "store_mb",
    "on_bad_clip",
    "max_seconds",
)
WORKER_SETTINGS = ("workers", "ray")
RUN_SETTINGS = ("align", "max_failed", "overwrite", "pairs_in_report", "by", "figures")


def _stack(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def setting_option(name: str, *flags: str, help: str = "", **more: Any) -> Decorator:
    """The option of a setting; `help` and `flags` replace those that its declaration gives."""
    setting = DECLARED[name]
    switch = setting.type.metavar == ""
    flag = f"{setting.flag}/{setting.off_flag}" if setting.off_flag else setting.flag
    more = ({"is_flag": True} if switch else {"type": ParamType(setting.type)}) | more
    if setting.type.repeatable:
        more = {"multiple": True, "callback": _joined} | more
    return click.option(*(flags or [flag]), name, default=None, help=help or _help(setting), **more)


def _joined(ctx: click.Context, param: click.Parameter, values: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The values of a repeated option as one, each once and in the order that its type gives them."""
    joined = [value for several in values for value in several]
    return tuple(param.type.value_type.read(joined)) if isinstance(param.type, ParamType) else tuple(joined)


def _help(setting: Setting) -> str:
    default = setting.default_text or setting.default
    if isinstance(default, bool):
        default = (setting.flag if default else "").removeprefix("--")
    return _with_facts(setting.help, default, setting.type.range)


def _with_facts(help: str, default: object, limits: str) -> str:
    """A help text with default and range, as click shows them."""
    facts = [f"default: {default}"] if default not in ("", None) else []
    facts += [limits] if limits else []
    return f"{help}  [{'; '.join(facts)}]".strip() if facts else help


def _settings(*names: str) -> Decorator:
    return _stack(*map(setting_option, names))


def intervention_options(entry: Entry) -> Decorator:
    """A command-line option for each option of an intervention."""
    return _stack(*map(_own_option, entry.options.values()))


def _own_option(option: Option) -> Decorator:
    default = str(option.default).lower() if option.default is ALL or option.type is bool else option.default
    help = _with_facts(option.help, default, option.range)
    return click.option(option.flag, option.name, type=ParamType(option_type(option)), default=None, help=help)


def main_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The main experiment's own options, for a command that runs controls."""
    return _stack(*(intervention_options(entry) for entry in catalogue().values() if entry.main))(command)


plugin_option = click.option(
    "--plugin",
    type=ParamType(path()),
    multiple=True,
    expose_value=False,
    help="A Python file or folder with experiments, metrics, families or corpora; repeatable.",
)
config_option = click.option(
    "--config", type=ParamType(path()), help="YAML file with these settings; options take precedence."
)
kind_option = setting_option("kind", help=f"{DECLARED['kind'].help}  [required]")
PAIR_KIND_HELP = "The main experiment whose recipients and targets are used.  [default: prosody]"
pair_kind_option = setting_option("kind", "--pairs", help=PAIR_KIND_HELP)
own_pair_kind_option = setting_option("kind", "--pairs", "--kind", help=PAIR_KIND_HELP)
report_options = _settings("pairs_in_report", "by")
beside_option = setting_option("need")

clip_options = _stack(_settings(*CLIP_SETTINGS), config_option, plugin_option, debug_option)
pair_options = _stack(clip_options, _settings(*PAIR_SETTINGS))
check_options = _stack(pair_options, _settings(*CHECK_SETTINGS))
answer_options = _stack(clip_options, _settings(*CHECK_SETTINGS, *WORKER_SETTINGS))
experiment_options = _stack(check_options, _settings(*RUN_SETTINGS, *WORKER_SETTINGS))


def check_plugin(entry: Entry, commands: Collection[str]) -> None:
    """`UserError` where an intervention or an option of it has a name that the program uses itself."""
    if entry.name in commands or entry.name == "all":
        word = "a command of the program" if entry.name in commands else "every control, to `control --kind`"
        raise UserError(f"{entry.where}: {entry.name} is {word}; rename the function", BAD_USAGE)
    taken = sorted(set(entry.options) & PROGRAM_OPTIONS)
    if taken:
        raise UserError(f"{entry.where}: the program has an option {taken[0]} already; rename the parameter", BAD_USAGE)


PROGRAM_OPTIONS = (
    {*DECLARED, "pairs", "config", "plugin", "plugins", "debug", "help", "name", "patch_all_layers"}
    | {one.off_flag.lstrip("-").replace("-", "_") for one in DECLARED.values() if one.off_flag}
    | {stored_name(name, kind) for name in DECLARED for kind in KINDS}
)
