"""Spellings of the five labels in the field's corpora.

    normalise_label("Pleasant_Surprise")    # "surprised"
    normalise_label("calm")                 # None: RAVDESS tells it from neutral

Only spellings of the same emotion are joined: a clip of a distinct one must not enter a pair under another name.
"""

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
