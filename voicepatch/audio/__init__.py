"""Sound files to samples; each file is decoded once."""
