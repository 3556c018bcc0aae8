"""Data sets: samples on disk, regions, prompts, augmentation, statistics, checks."""
