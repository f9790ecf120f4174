"""Figure of the unpatched answers: how many follow the voice, the words, both or neither.

chart(table, "model M, data D")                  # answers.png, answers.svg; table of `analysis.answers`
"""

import altair as alt
import pandas as pd

from voicepatch.analysis.answers import BOTH, CONFLICT, CONGRUENT, FOLLOWED, NEITHER
from voicepatch.analysis.need import VOICE, WORDS
from voicepatch.figures.curves import KIND_COLOURS
from voicepatch.figures.figure_style import BLUE, GREY, LIGHT_GREY, styled
from voicepatch.text import escape

TITLE = "What the unpatched answers follow"
PARTS = {
    CONFLICT: "clips whose words and voice have different labels",
    CONGRUENT: "clips whose words and voice have the same label",
    "": "all clips",
}
COLOURS = {VOICE: KIND_COLOURS["prosody"], WORDS: KIND_COLOURS["semantic"], BOTH: BLUE, NEITHER: GREY}
NAMES = {VOICE: "the voice", WORDS: "the words", BOTH: "both", NEITHER: "neither"}
PANEL_WIDTH, ROW_HEIGHT = 150, 26


def chart(table: pd.DataFrame, *notes: str) -> alt.VConcatChart:
    """The shares with their intervals: a panel for what is followed, a row for each type of text."""
    parts = [_part(mine, congruence) for congruence, mine in table.groupby("congruence", sort=False)]
    lines = ["lines: 95 % intervals, texts as the sample; grey: chance, the share of random answers", *notes]
    return styled(alt.vconcat(*parts, spacing=24), TITLE, lines, TITLE)


def _part(table: pd.DataFrame, congruence: str) -> alt.FacetChart:
    shown = NAMES if congruence else NAMES | {NEITHER: "another label"}
    names = [shown[followed] for followed in FOLLOWED[congruence]]
    rows = [f"{escape(one.text_type)} ({one.n_clips})" for one in table.itertuples()]
    table = table.assign(row=rows, name=table["follows"].map(shown))
    table["chance_name"] = ["chance", *[""] * (len(table) - 1)]  # in the first panel's first row
    x = alt.X("share:Q", title="share of answers").scale(domain=[0, 1]).axis(format="%", tickCount=3)
    y = alt.Y("row:N", title="texts (clips)", sort=None).axis(labelLimit=200)
    colour = alt.Color("name:N", legend=None).scale(
        domain=names, range=[COLOURS[followed] for followed in FOLLOWED[congruence]]
    )
    base = alt.Chart(table).encode(y=y)
    tooltip = [
        alt.Tooltip("name:N", title="follows"),
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("share", "share_low", "share_high", "chance")),
        *("n_clips:Q", "n_texts:Q"),
    ]
    drawn = alt.layer(
        base.mark_tick(color=LIGHT_GREY, thickness=3, height=ROW_HEIGHT - 8).encode(x="chance:Q"),
        base.mark_text(color=GREY, align="left", baseline="bottom", dx=5, dy=-3).encode(
            x="chance:Q", text="chance_name"
        ),
        base.mark_rule(strokeWidth=2).encode(x="share_low:Q", x2="share_high:Q", color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
    ).properties(width=PANEL_WIDTH, height=ROW_HEIGHT * len(set(rows)))
    header = alt.Header(
        title=PARTS[congruence], titleAnchor="start", labelAnchor="start", titlePadding=0, labelPadding=4
    )
    return drawn.facet(column=alt.Column("name:N", sort=names, header=header), spacing=16).resolve_scale(
        color="independent"
    )
