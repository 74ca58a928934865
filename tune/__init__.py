"""Training: learn a few numbers on a frozen timm ViT. Needs torch and timm."""
