"""Pictures of images, masks and prompts."""
