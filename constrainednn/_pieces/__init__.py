"""Parts of solvers in pieces: marching and refinement. Knows no equation."""
