"""What went wrong in an intervention, in a line that names its file and line, instead of nnsight's internals.

    raise explained(error, experiment) from error

The traceback itself is still there with `--debug`.
"""

import inspect
import traceback
from pathlib import Path

from errors import UserError
from interventions.core.registry import Intervention


def explained(error: Exception, experiment: Intervention) -> UserError:
    """The error as a message to whoever wrote the intervention."""
    path = inspect.getsourcefile(experiment.run) or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) and error.lineno else lines[-1] if lines else "?"
    return UserError(f"{_short(path)}:{line}: {_what(error)}")


def _what(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError):
        return f"{reason}: nnsight reads a trace's body from the file and runs it, so it cannot return or yield"
    if isinstance(error, NameError):
        return f"{reason}: of what a trace computes only what was saved outlives it, as in x = lm.readout().save()"
    if type(error).__name__ == "OutOfOrderError":
        return f"{reason}: inside a trace, layers are used in the order in which the model runs them"
    if "shape" in reason or "size of tensor" in reason:
        return f"{reason} (streams are [rows, positions, hidden]; a value to write is [1, positions, hidden])"
    return f"{type(error).__name__}: {reason}"


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
