"""Data sets: samples on disk, what a region is, prompts, augmentation, statistics, checks."""
