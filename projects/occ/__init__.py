"""Camera-based 3D semantic occupancy: structures, datasets, models, evaluation, visualisation and engine, no particular network."""
