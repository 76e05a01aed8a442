"""Objectives: what training lowers besides squared residuals, and what it reached."""
