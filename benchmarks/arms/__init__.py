"""What `benchmarks/accuracy.py` is made of: how each arm prunes, the pictures, and the written-down outcomes."""
