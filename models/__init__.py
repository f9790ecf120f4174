"""What is studied: the model (`opens2s`), its files (`checkpoint`), its input (`opens2s_io`) and answers (`labels`)."""
