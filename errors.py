"""The one exception for what the user can mend; `cli.py` alone catches it and prints it as one line."""

BAD_INPUT = 1  # the data or the model is wrong
BAD_USAGE = 2  # an option, or a combination of options, is wrong
CHECK_FAILED = 3  # a sanity check failed, so no metric may be written


class UserError(Exception):
    """One line that names the file, row or option and says what to do next.

    `status` is the exit status of the process (SPEC section 10).
    """

    def __init__(self, message: str, status: int = BAD_INPUT):
        super().__init__(message)
        self.status = status
