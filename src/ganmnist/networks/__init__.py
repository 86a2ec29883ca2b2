"""Generators and discriminators, one file per architecture family.

A generator is called as G(z, y=None) and returns images (B, C, H, W) in [-1, 1]. A discriminator
splits into `features(sample) -> (B, F)` and `score(features, sample) -> (B,)` logits.
"""
