"""What a solve returns: the solution, its history, estimates, error estimate and comparison."""
