"""Metrics from outside: what `@metric` registers.

    @metric
    def entropy(records):                    # a frame with the columns of SPEC section 9
        p = logits_of(records["logits_patch"]).softmax()
        return -(p * np.log(p)).sum(1)       # one value a record

    metrics.all()                            # {"entropy": Metric}; plugins that register one are imported first

`voicepatch.analysis.metrics` has the built-in ones.
"""

from collections.abc import Callable
from typing import Any

from voicepatch.analysis import metrics as declared
from voicepatch.analysis.metrics import Metric
from voicepatch.errors import UserError
from voicepatch.registry.plugins import Registry

metrics: Registry[Metric] = Registry("metric")


def metric(function: Callable | None = None, /, **how: Any) -> Any:
    """Register a function as a metric; as `@metric`, or `@metric(eligible=True)` with fields of `Metric`.

    Raises `UserError` where it has the name of a column.
    """
    if function is None:
        return lambda decorated: metric(decorated, **how)
    made = declared.metric(function, **how)
    if why := declared.name_taken(made, declared.reserved()):
        raise UserError(why)
    metrics.add(made.name, made, made.where)
    return made
