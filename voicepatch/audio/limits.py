"""The maximum length of a sound. Imports nothing, so that `--help` is fast."""

MAX_SECONDS = 1200  # the default: twice the longest maximum of a family, Audio Flamingo 3
