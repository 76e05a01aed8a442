"""The table of a study, and what can be read off it."""
