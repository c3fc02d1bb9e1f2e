"""Camera-based 3D semantic occupancy, no particular network."""
