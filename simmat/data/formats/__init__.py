"""Layouts of data sets on disk: folders, a manifest, COCO; and arrays in memory."""
