"""Pictures, curves and pages a person can look at; numpy, Pillow and matplotlib only."""
