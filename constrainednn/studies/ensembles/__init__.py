"""Several solutions of one problem."""
