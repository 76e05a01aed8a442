"""Files: archives, locks, folders of runs."""
