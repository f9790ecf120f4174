"""Which values of a decoder block an experiment wrote, in words.

site_name(records)                               # "output of the block (residual stream)"
"""

import pandas as pd

BLOCK_OUTPUT = "output"  # the residual stream after the block
NOTHING, ELSEWHERE = "nothing", "elsewhere"  # a stream is read out; what is written cannot be seen
NAMES = {
    BLOCK_OUTPUT: "output of the block (residual stream)",
    "input": "input of the block (residual stream)",
    "self_attn.output": "output of the attention",
    "mlp.output": "output of the MLP",
    "self_attn.o_proj.input": "input of o_proj (a head's slice)",
    "self_attn.k_proj.output": "keys",
    "self_attn.v_proj.output": "values",
    "self_attn.attention_mask": "attention mask",
    NOTHING: "nothing is written",
    ELSEWHERE: "a place that the engine does not follow",
}


def site_name(table: pd.DataFrame) -> str:
    """The sites written in any row of the records or metrics, in words."""
    return " and ".join(NAMES.get(site, site) for site in sites_of(table))


def sites_of(table: pd.DataFrame) -> list[str]:
    """The sites written in any row, as the records name them; a table without this column is of the block's output."""
    if "site" not in table:
        return [BLOCK_OUTPUT]
    return list(dict.fromkeys(site for row in table["site"].unique() for site in str(row).split(" + ")))
