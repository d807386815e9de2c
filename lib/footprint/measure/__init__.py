"""Running a model under instruments: what is read, what is run, and in which order."""
