"""Pages and pictures of experts."""
