"""What went wrong in an intervention, in a line that names its file and line, instead of nnsight's internals.

    raise explained(error, experiment) from error

The traceback itself is still there with `--debug`.
"""

import inspect
import re
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

from voicepatch.engine.failures import Mistake
from voicepatch.errors import UserError
from voicepatch.registry.intervention import Intervention
from voicepatch.registry.sources import folders

FORM = "end with `logits = lm.logits.save()` in the last trace and `return logits` behind it"
NO_WEIGHTS = (
    "if these are attention weights, lm.layers[l].self_attn.output[1], they are None, since sdpa computes none; from "
    'Python, subject.model.llm.set_attn_implementation("eager") behind load_subject lets them be read (written, they '
    "change nothing, since they have been used by then)"
)


def explained(error: Exception, experiment: Intervention) -> UserError:
    """The error as a message to whoever wrote the intervention."""
    return UserError(f"{place(error, experiment)}: {_what(error, experiment.function.__code__)}")


def wrote_nothing(experiment: Intervention) -> UserError:
    """The last trace of an experiment wrote nothing."""
    return UserError(
        f"{place_of(experiment)}: {experiment.name} writes nothing in its last trace; assign to the stream there, "
        "as in lm.layers_output[layer][:, pair.a_span] = donor"
    )


def gave_no_readout(experiment: Intervention, result: Any, shape: Any = ("1", "vocabulary")) -> UserError:
    """An experiment returned something else than a readout."""
    if isinstance(result, (list, tuple)):
        got = f"a {type(result).__name__}"
    else:
        got = f"a value of shape {list(result.shape)}" if hasattr(result, "shape") else repr(result)[:80]
    wanted = ", ".join(map(str, shape))
    return UserError(f"{place_of(experiment)}: {experiment.name} returned {got}, not logits [{wanted}]; {FORM}")


def other_readout(experiment: Intervention, trace: tuple[str, int] | None, why: str) -> UserError:
    """What an experiment returned is not the readout of a last trace over A; `trace` is where that one is opened."""
    where = f"{_short(trace[0])}:{trace[1]}" if trace else place_of(experiment)
    return UserError(f"{where}: {experiment.name} {why}; the readout must come from its last trace, over pair.a")


def changed_clip(experiment: Intervention, tensor: str) -> UserError:
    """An experiment changed a tensor of a clip in place."""
    return UserError(
        f"{place_of(experiment)}: {experiment.name} changes {tensor} in place, which is the same for every experiment; "
        "write into lm.layers_input[0] in a trace, or into a .clone() of it"
    )


def changed_model(experiment: Intervention) -> UserError:
    """An experiment changed the model, which then answered A otherwise."""
    return UserError(
        f"{place_of(experiment)}: {experiment.name} changes the model (a weight, a hook or a setting) and leaves "
        "it changed for all that runs later; load the model again, and write into outputs instead of weights"
    )


def place(error: BaseException, experiment: Intervention) -> str:
    """`file:line` of the last line of an intervention that led to the error."""
    own = inspect.getsourcefile(experiment.function) or "?"
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == own or Path(frame.filename).parent in folders()
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        frames.append((error.filename or own, error.lineno))
    return "{}:{}".format(*[_short(frames[-1][0]), frames[-1][1]] if frames else (_short(own), "?"))


def place_of(experiment: Intervention) -> str:
    """`file:line` where an experiment begins."""
    path, line = inspect.getsourcefile(experiment.function) or "?", experiment.function.__code__.co_firstlineno
    return f"{_short(path)}:{line}"


def _what(error: Exception, code: CodeType) -> str:
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, Mistake):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{reason}: nnsight reads a trace's body from the file and runs it, so it cannot return or yield"
    if isinstance(error, NameError):
        # Behind a trace a variable that it did not save is unbound; in a trace's body, which nnsight compiles by
        # itself, it is a plain NameError.
        name = error.name or next(iter(re.findall(r"'(\w+)'", reason)), "")
        if isinstance(error, UnboundLocalError) or name in (*code.co_varnames, *code.co_cellvars):
            return f"{reason}: of what a trace computes only what was saved outlives it, as in {name} = (...).save()"
    if "'NoneType' object" in reason and "self_attn" in code.co_names:
        return f"{reason}: {NO_WEIGHTS}"
    if type(error).__name__ == "OutOfOrderError":
        return f"{reason}: inside a trace, values are used in the order in which the model computes them"
    if "does not require grad" in reason:
        return f"{reason}: traces run without gradients; lm.gradient(pair.a, tokens) gives those of a clip's own run"
    shaped = any(words in reason for words in ("shape", "size of tensor", "expanded size"))
    if shaped and isinstance(error, (RuntimeError, ValueError)):
        return (
            f"{reason} (values are [1, positions, width]; pair.resampled(value) brings B's values at pair.b_span to "
            "the length of pair.a_span; pair.a.span and pair.b.span need not be equally long)"
        )
    return f"{type(error).__name__}: {reason}"


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
