"""Models: recipes, networks, random features, pieces, and transforms of input and output."""
