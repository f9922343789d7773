"""Trained fields as folders on disk, and jobs over many items."""
