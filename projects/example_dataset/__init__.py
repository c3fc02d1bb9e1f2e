"""The example of docs/add_a_dataset.md: recordings of one's own, with three cameras of different image sizes."""
