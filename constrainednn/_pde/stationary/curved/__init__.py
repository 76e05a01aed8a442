"""Elements that the boundary of a region cuts."""
