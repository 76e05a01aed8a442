"""How initial and boundary value problems are put together from pieces."""
