"""The gap: three streams of points, residuals on them, statistics, the report."""
