"""Cases that many tests share: a small network, a batch, its gradients, and the models that people train."""
