"""Text encoders of the BERT kind: known structures, and models from the files that people and hubs keep them in."""
