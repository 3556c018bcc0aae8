"""The bench: a grid of trainings from one TOML, resumable cell by cell, with a table, plots and a page of it."""
