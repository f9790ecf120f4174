"""The run directory: its declarations, its one writer and its one reader."""
