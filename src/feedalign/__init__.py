"""Direct feedback alignment: train any PyTorch model with it, see whether it aligns, know when it will."""
