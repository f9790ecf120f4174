"""What is studied: the model (`opens2s`), its input (`opens2s_io`) and its answer tokens (`labels`)."""
