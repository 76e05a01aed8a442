"""What the page of a solution says."""
