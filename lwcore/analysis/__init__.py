"""Analysis reads a model and changes nothing: what it costs, what hangs together, what it can spare."""
