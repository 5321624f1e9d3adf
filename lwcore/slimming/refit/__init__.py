"""Re-fitting without training: what a removal took is given back in closed form from calibration samples."""
