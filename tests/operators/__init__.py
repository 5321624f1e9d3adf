"""Cases for every operator rule of the bridge: one node each, with inputs and constants."""
