"""The gap: three streams of points, residuals at them, statistics, the report."""
