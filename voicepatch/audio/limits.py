"""How much of a sound is read. Imports nothing, so that the command line can say it at once."""

MAX_SECONDS = 1200  # the default: twice the longest that a model is given, Audio Flamingo 3
