"""Whether nnsight reads the body of a trace that Python runs.

check_sources()                              # in `lm.trace`: the functions of the experiment that led here

nnsight compiles a trace's body from the text of its file, which it finds by line number and reads once. That text must
be the one that the running function was compiled from, and its lines must be those that Python counts.
"""

import __future__

import ast
import inspect
import linecache
import re
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType

from nnsight.tracing.globals import BLOCKS, SOURCES
from nnsight.tracing.tracer import Tracer

from voicepatch.engine.failures import Mistake

ENGINE = "voicepatch.engine.engine"  # the module that calls experiments
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
# `str.splitlines`, by which nnsight counts, breaks at these; Python does not.
ODD_BREAK = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
LINE_END = re.compile("\r\n?|\n")
FUTURE = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})


def check_sources() -> None:
    """Raise `Mistake` where the body of a trace that is opened now cannot be read from its file.

    Looks at every function between the engine and the caller; one of them holds the `with`. After a file was loaded
    again, nnsight reads it again.
    """
    frame: FrameType | None = sys._getframe(2)
    codes: list[CodeType] = []
    while frame is not None and frame.f_globals.get("__name__") != ENGINE:
        codes.append(frame.f_code)
        frame = frame.f_back
    for code in codes if frame is not None else ():
        if not code.co_filename.startswith(LIBRARIES):
            _check(code)


def _check(code: CodeType) -> None:
    path = code.co_filename
    text = Tracer.source(path)
    if not _holds(text, code):
        linecache.checkcache(path)
        text = "".join(linecache.getlines(path))
        if not _holds(text, code):
            raise Mistake(
                f"{code.co_name} is not what {Path(path).name} has at line {code.co_firstlineno}, from which the body "
                "of its trace is read: the file was changed after it was loaded, or %autoreload compiled the function "
                "by itself (load it with importlib.reload), or pytest rewrote an assert in it (run pytest with "
                "--assert=plain)"
            )
        SOURCES[path] = text
        for site in [site for site in BLOCKS if site[0] == path]:
            del BLOCKS[site]
    if _odd_break(text):
        raise Mistake(
            f"{_odd_break(text)} of {Path(path).name}, at which nnsight ends a line and Python does not, so the body "
            "of a trace would be read from other lines; remove it, or write it as an escape"
        )


@lru_cache(maxsize=256)
def _odd_break(text: str) -> str:
    """The first character of a text at which only nnsight ends a line, and its line; "" where there is none."""
    odd = ODD_BREAK.search(text)
    return f"{odd[0]!r} in line {len(re.findall(LINE_END, text[: odd.start()])) + 1}" if odd else ""


@lru_cache(maxsize=256)
def _holds(text: str, code: CodeType) -> bool:
    """Whether a function comes from this text; true where there is no text, of which nnsight has something to say."""
    if not text or not code.co_flags & inspect.CO_OPTIMIZED:
        return True
    flags = code.co_flags & FUTURE | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        found = [compile(text, code.co_filename, "exec", flags, dont_inherit=True)]
    except (SyntaxError, ValueError):
        return False
    for outer in found:  # which grows
        found += [inner for inner in outer.co_consts if isinstance(inner, CodeType)]
    return code in found
