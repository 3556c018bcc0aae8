"""Files in and out: images, files written whole or not at all, weights and the Hugging Face Hub."""
