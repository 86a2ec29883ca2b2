"""GANs on MNIST: a PyTorch Lightning research template."""
