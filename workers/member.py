"""One worker as the driver sees it.

member.call("load")                 # a reference that `ray.wait` takes
member.answer(reference)            # what the method gave; UserError as without workers, `Lost` where it died
"""

from dataclasses import dataclass
from typing import Any

from errors import UserError
from workers.worker import About


class Lost(Exception):
    """A worker is gone: killed, out of memory, or its machine is."""


@dataclass(eq=False)
class Member:
    """An actor, and where it is once it has loaded."""

    ray: Any
    actor: Any
    about: About | None = None
    lost: bool = False

    @property
    def where(self) -> str:
        return f"{self.about.host}, process {self.about.pid}" if self.about else "a worker that did not start"

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.actor, method).remote(*args)

    def answer(self, reference: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                raise self.named(cause) from None
            raise cause or error from error
        except errors.RayError as error:
            self.lost = True
            raise Lost(next(iter(str(error).splitlines()), "")) from None

    def named(self, error: UserError) -> UserError:
        """The error with the name of this worker's machine."""
        return UserError(f"{error} (on {self.about.host})", error.status) if self.about else error
