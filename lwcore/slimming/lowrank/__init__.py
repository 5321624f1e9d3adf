"""The low-rank step: layers split in two thinner ones."""
