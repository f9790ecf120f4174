"""From records to metrics and statistics. Reads the files of a run only; no torch in here."""
