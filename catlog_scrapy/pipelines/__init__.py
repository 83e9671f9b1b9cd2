"""One step a file: check, then store. They stand behind every pipeline of the project."""
