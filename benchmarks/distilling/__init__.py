"""Parts of `benchmarks/distil.py`: one training and what is kept of it, training for int8, and the curves drawn."""
