"""Parts of all solvers in pieces: meshes, condensation, marching, refinement; no equation."""
