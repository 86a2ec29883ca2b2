"""Generators and discriminators, one file per architecture.

A generator is called as G(z, y) and returns images (B, C, H, W) in [-1, 1]; the condition y may be
None. A discriminator has `features(batch) -> (B, F)` and `logits(features, batch) -> (B,)` logits.
"""
