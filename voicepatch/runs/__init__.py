"""From settings to records: preflight checks, the pair loop, where pairs are computed, and how a run is stopped."""
