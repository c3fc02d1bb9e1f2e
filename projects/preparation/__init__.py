"""Making data roots that the data sets read: from raw downloads, from older annotation files, and checking them."""
