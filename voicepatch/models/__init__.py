"""What is studied: families of speech language models, a file each, behind one small interface (`speech_lm`)."""
