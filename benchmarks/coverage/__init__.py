"""Parts of `benchmarks/prune_coverage.py`: what is pruned, how it is exported, and the two pruners."""
