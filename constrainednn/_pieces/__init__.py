"""Building blocks of piecewise solvers, for any equation: meshes, condensation, refinement."""
