"""Regions of the plane and of space by signed distances, and their boundaries with normals."""
