"""How a trace is run: the face that experiments see, recordings, plan, fused run, and the clips that are held."""
