"""HTTP: what was loaded, for other programs, and what is to be loaded."""
