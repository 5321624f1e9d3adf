"""Teaching a slimmed model: fine-tuning, distillation, and training for int8; torch is imported with `teach` alone."""
