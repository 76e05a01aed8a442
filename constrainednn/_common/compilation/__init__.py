"""One compiled program for functions that differ only in the numbers that they hold."""
