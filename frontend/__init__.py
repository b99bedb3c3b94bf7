"""What users write models in: tensors, functions, modules and optimizers that build graphs."""
