"""A patient's page: what it shows, part by part, and how it is made."""
