"""What every package may use: errors, messages, arguments, random keys, memory; no mathematics."""
