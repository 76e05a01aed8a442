"""What a user states: constraints, unknowns, experiments; and what a driver must offer."""
