"""Which experiments there are, and what makes a function one. Imports neither torch nor the engine."""
