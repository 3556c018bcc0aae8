"""Pictures of images, masks and prompts; numpy and Pillow only."""
