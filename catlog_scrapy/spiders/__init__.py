"""The spiders: one source a file, an operation a spider."""
