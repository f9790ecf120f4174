"""How a trace is run: the interface that experiments see, recordings, plan, fused run, and the clips in memory."""
