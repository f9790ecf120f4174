"""What is studied: families of speech language models, each a file behind one small interface (`speech_lm.SpeechLM`)."""
