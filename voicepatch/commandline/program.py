"""The group of commands: a command for each intervention, plugins, and errors in one line.

    @click.group(cls=Program)
    def cli(): ...

A `UserError` becomes a line and its exit status here and nowhere else.
"""

import difflib
import errno
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, cast

import click

import interventions  # noqa: F401  its folder registers itself
from voicepatch.commandline.config_file import plugins_in
from voicepatch.commandline.lacks import check_process, lack_of
from voicepatch.errors import BAD_INPUT, BAD_USAGE, UserError, can_be_written, printable
from voicepatch.registry.catalogue import add_plugin, broken, catalogue, find, leave_out, refuse_broken
from voicepatch.registry.intervention import command_name
from voicepatch.registry.syntax import Entry
from voicepatch.runs.interrupt import INTERRUPTED, stoppable

# What writing to a pipe or a terminal gives that is no longer there.
NOBODY_READS = (errno.EPIPE, errno.EIO)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Program(click.Group):
    """The group that turns a `UserError` into one line and its exit status, and has a command for each intervention."""

    make_command: Callable[[Entry], click.Command]
    check: Callable[[Entry, Collection[str]], None]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *catalogue()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command = super().get_command(ctx, name)
        entry = find(name)
        return self.make_command(entry) if command is None and entry else command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError:
            refuse_broken(args[0])
            close = difflib.get_close_matches(command_name(args[0])[:80], self.list_commands(ctx), n=1)
            if not close:
                raise
            raise click.UsageError(f"No such command {args[0]!r}; did you mean {close[0]}?", ctx) from None
        return command.name if command else name, command, rest  # as it is shown, not as it was written

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands first, then the interventions, each with its first line."""
        commands = sorted([*super().list_commands(ctx), *(name for name, entry in catalogue().items() if entry.main)])
        others = [name for name, entry in catalogue().items() if not entry.main]
        for title, names in (("Commands", commands), ("Interventions", others)):
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, command.get_short_help_str(limit=90)) for name, command in found if command]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            # Tokens and ids have letters that a terminal's encoding may lack: better a "?" than no result.
            with suppress(AttributeError, OSError):  # a notebook's own stream, or one that leads elsewhere by now
                cast(io.TextIOWrapper, stream).reconfigure(errors="replace")
        # Before anything is parsed: a plugin's name must be known where a command or a --kind is looked up.
        words = list(sys.argv[1:] if args is None else args)
        try:
            check_process()
            for option, word in zip(["", *words], words, strict=False):
                if not can_be_written(word):
                    named = f"{option} " if option.startswith("-") else ""
                    raise UserError(f"{named}{word}: is not in UTF-8; write it in UTF-8, or rename the file", BAD_USAGE)
            for word, value in pairwise([*words, ""]):
                name, equals, joined = word.partition("=")
                named = joined if equals else value
                for plugin in [named] if name == "--plugin" else plugins_in(named) if name == "--config" else []:
                    add_plugin(plugin)
            for entry in list(catalogue().values()):
                try:
                    self.check(entry, self.commands)
                except UserError as error:
                    leave_out(entry, error)
        except UserError as error:
            _end_with(f"error: {error}")
            sys.exit(error.status)
        for path, why in broken().items():
            if command_name(path.stem) not in map(command_name, words):  # else it is the error of the command
                _end_with(f"warning: left out: {why}")
        try:
            return super().main(words, *rest, **extra)
        except OSError as error:  # of help, or of an error's line; what a command writes is seen to below
            _end_with(f"error: the output cannot be written ({error.strerror})")
            sys.exit(BAD_INPUT)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            raise _in_one_line(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stoppable():
                return super().invoke(ctx)
        except click.UsageError as error:
            raise _in_one_line(error) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            line, status = _last_line(error)
            if ctx.meta.get("debug") and status != INTERRUPTED:
                raise
            _end_with(line)
            ctx.exit(status)


def _last_line(error: BaseException) -> tuple[str, int]:
    """The line that a command ends with after an error, and its exit status."""
    if isinstance(error, UserError):
        return f"error: {error}", error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: the same command goes on where this one stopped", INTERRUPTED
    if isinstance(error, SystemExit):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"error: {last.filename}:{last.lineno}: ends the program (SystemExit); raise an error instead", BAD_INPUT
    # An error of a file has the file's name; this one is of the output, which nobody reads any more.
    if isinstance(error, OSError) and error.errno in NOBODY_READS and error.filename is None:
        line = "interrupted: nobody reads the output; the same command goes on where this one stopped"
        return line, INTERRUPTED
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        what = error.filename or "a file, or the output"
        line = f"error: {what}: cannot be written ({error.strerror}); free the disk and start the command again"
        return line, BAD_INPUT
    if lacked := lack_of(error):
        return f"error: {lacked}", BAD_INPUT
    line = str(error).splitlines()[0] if str(error) else ""
    return f"error: {type(error).__name__}: {line} (a bug in the program; --debug shows where)", BAD_INPUT


def _in_one_line(error: click.UsageError) -> click.UsageError:
    """The error without the lines of usage that click sets before it, and with the command whose help has them."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error  # the help itself
    # click lists the choices of a missing option on lines of their own, and repeats words as they are.
    line = printable(" ".join(error.format_message().split()))
    return click.UsageError(f"{line} (see {error.ctx.command_path} --help)" if error.ctx else line)


@contextmanager
def starting() -> Iterator[None]:
    """For what is imported and loaded once: without the collection of garbage, which finds none and takes its time.

    A fifth of the time that torch and transformers take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _end_with(line: str) -> None:
    """Print the last line, and nothing where the terminal is gone, also when Python ends and empties its buffers."""
    with suppress(OSError):
        click.echo(line, err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = ctx.meta.get("debug", False) or value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error."
)
