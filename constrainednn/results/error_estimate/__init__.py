"""The error of a solution, estimated from its residual."""
