"""Training: crops, augmentation, losses, optimiser, checkpoints and the training loop."""
