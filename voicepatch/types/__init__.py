"""The values that every room shares: clips, pairs, data sets, tasks, settings, records and checks."""
