"""The nearest point where equations hold that are not affine, for a batch of points."""
