"""From records to knowledge: metrics a layer, figures and tables. Reads files of a run only; no torch in here."""
