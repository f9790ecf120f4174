"""How a run is kept: the pair loop, the checks that gate it, the run directory, its lock, and how a run is stopped."""
