"""`python -m voicepatch` is not the program; one line says which command is."""

import sys

print("error: the program is `python cli.py`, or the installed command `voicepatch`", file=sys.stderr)
sys.exit(2)
