"""What stands behind `cli.py`: its options, the configuration file, and the group that shows errors."""
