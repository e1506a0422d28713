"""Image models in batch mode, and how good their images are."""
