"""One module per benchmarked op: cases, shared inputs, and what a right answer is."""
