"""Ways to compute the ops: ours, and peers grouped by the library that they use."""
