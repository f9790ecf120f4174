"""What experiments share: the traced model, the registry, the pair loop, the checks and the run directory."""
