"""Attention masks as experiments see them: `[rows, queries, keys]`, added to the scores before the softmax.

    mask = additive(given, n_queries, n_keys, like)     # 0 where a query attends to a key, -inf where it does not
    check_rows(layer, attends_to_nothing(mask[0]))      # UserError for a query that can attend to nothing

Attention kernels take a mask of booleans, of numbers, or none where each position attends to all positions up to
itself; here it is always of numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch

from voicepatch.errors import UserError


def additive(given: torch.Tensor | None, n_queries: int, n_keys: int, like: torch.Tensor) -> torch.Tensor:
    """The mask that an attention was given, `[rows or 1, 1, queries, keys]` or None, in the type of `like`.

    Keys are as many as queries, or more: then the queries are the last positions. `UserError` for a mask with a row for
    each head.
    """
    if given is None:
        allowed = torch.ones(n_queries, n_keys, dtype=torch.bool, device=like.device).tril(n_keys - n_queries)[None]
    elif given.dim() != 4 or given.shape[1] != 1:
        raise UserError(
            f"lm.attention_mask: the attention takes a mask of shape {list(given.shape)}, not one for all heads; load "
            "the model with the attention implementation sdpa or eager"
        )
    elif given.dtype == torch.bool:
        allowed = given[:, 0, :, :n_keys]
    else:
        # Some masks have the lowest finite number where others have -inf.
        lowest = torch.finfo(given.dtype).min
        return given[:, 0, :, :n_keys].masked_fill(given[:, 0, :, :n_keys] <= lowest, -torch.inf).to(like.dtype)
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill(~allowed, -torch.inf)


def of_inputs(args: tuple[Any, ...], kwargs: dict[str, Any], n_past: int = 0) -> torch.Tensor:
    """The additive mask among the arguments of an attention module that stands on `n_past` earlier positions."""
    hidden = [*args, *kwargs.values()][0]
    n = hidden.shape[1]
    return additive(kwargs["attention_mask"], n, n_past + n, hidden)


def attends_to_nothing(mask: torch.Tensor) -> torch.Tensor:
    """`[queries]`, true where a row of a mask `[queries, keys]` has no key to attend to."""
    return (mask == -torch.inf).all(-1)


def check_rows(layer: int, blocked: Sequence[bool]) -> None:
    """`UserError` where a query of block `layer` can attend to nothing, since its softmax has no value."""
    if any(blocked):
        raise UserError(f"lm.attention_mask[{layer}]: a position can attend to nothing; leave it itself at least")
