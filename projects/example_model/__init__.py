"""A network of one's own with GaussRender, in a config and in a bare PyTorch loop: docs/add_a_model.md."""
