"""Studies: a grid of settings times seeds."""
