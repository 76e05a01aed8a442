"""Elements in space and time: what a residual sees, polynomials, meshes, and one window."""
