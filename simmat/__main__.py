"""`python -m simmat`, and `accelerate launch -m simmat`."""

from simmat.cli import main

main()
