"""What is tried before training."""
