"""Files, folders and text that any part of the package may use."""
