"""The driver of problems that are trained step by step."""
