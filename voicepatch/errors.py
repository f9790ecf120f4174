"""The one exception for what the user can mend; `cli.py` alone catches it and prints it as one line."""

BAD_INPUT = 1  # the data or the model is wrong
BAD_USAGE = 2  # an option, or a combination of options, is wrong
CHECK_FAILED = 3  # a sanity check failed, so no metric may be written
MAX_LENGTH = 1200


class UserError(Exception):
    """One line that names the file, row or option and says what to do next.

    `status` is the exit status of the process (SPEC section 10). What a message quotes from files may be anything: line
    breaks and control characters in it are escaped, and the middle of a very long one is left out.
    """

    def __init__(self, message: str, status: int = BAD_INPUT):
        super().__init__(_one_line(message))
        self.status = status

    def __reduce__(self) -> tuple:
        """Between processes it goes as its line and its status, whatever a kind of it is made of."""
        return _again, (type(self), str(self), self.status)


class CannotWrite(UserError):
    """The disk is full, or a file may not be written: nothing more can be kept."""


def _again(kind: type[UserError], message: str, status: int) -> UserError:
    error = kind.__new__(kind, message)
    error.status = status
    return error


def can_be_written(text: str) -> bool:
    """Whether `text` has no half of a surrogate pair, Python's sign for a byte that is not in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_line(message: str) -> str:
    if len(message) > MAX_LENGTH:
        message = f"{message[: MAX_LENGTH // 2]} ... {message[-MAX_LENGTH // 2 :]}"
    return printable(message)


def printable(text: str) -> str:
    """`text` with what cannot be printed escaped; a byte of a path that is not in UTF-8 as `\\xe9`, as it is there."""
    text = "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
