"""The values that every room shares: clips, pairs and data sets."""
