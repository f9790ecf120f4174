"""One form for what can be spelled in several: the five labels, and composed letters.

    normalise_label("Pleasant_Surprise")    # "surprised"
    normalise_label("calm")                 # None: RAVDESS tells it from neutral
    nfc("cafe\u0301")                       # "caf\u00e9"

Only spellings of the same emotion are joined: a clip of a distinct one must not enter a pair under another name.
"""

import unicodedata

# Where the spellings come from:
#   RAVDESS      neutral happy sad angry surprised
#   TESS         neutral happy sad angry ps, in folder names also pleasant_surprise and pleasant_surprised
#   ESD          Neutral Happy Sad Angry Surprise
#   CREMA-D      NEU HAP SAD ANG
#   IEMOCAP      neu hap sad ang sur, and the nouns in its annotations
#   EMIS         neutral happy sad angry
#   MELD         neutral joy sadness anger surprise
# Other emotions of these corpora stay unknown, also where papers merge them: calm (RAVDESS), excited (IEMOCAP),
# frustration, fear, disgust. So do RAVDESS's numbers, and single letters: F is joy in Emo-DB and fear in SAVEE.
_SPELLINGS = {
    "neutral": ("neutral", "neu", "neutrality"),
    "happy": ("happy", "hap", "happiness", "joy", "joyful"),
    "sad": ("sad", "sadness"),
    "angry": ("angry", "ang", "anger"),
    "surprised": ("surprised", "surprise", "sur", "ps", "pleasant surprise", "pleasant surprised"),
}
_LABEL_OF = {spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings}


def normalise_label(text: str) -> str | None:
    """The label among `models.labels.LABELS` that `text` is a spelling of, or None.

    Case, outer space, and the choice of space, `_` or `-` between words do not matter (SPEC section 11).
    """
    return _LABEL_OF.get(" ".join(text.replace("_", " ").replace("-", " ").casefold().split()))


def nfc(text: str) -> str:
    """The text with composed letters (Unicode NFC): file systems and editors disagree on how they write "é"."""
    return unicodedata.normalize("NFC", text)
