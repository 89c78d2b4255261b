"""What is trained: losses over an encoder and its heads."""
