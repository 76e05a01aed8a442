"""A run: its settings, its folder, what it tells and hears."""
