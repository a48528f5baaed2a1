"""Documentation pages, and the two programs that generate parts of them."""
