"""What `cli.py` is made of: options, the settings file, and the group that turns an error into one line."""
