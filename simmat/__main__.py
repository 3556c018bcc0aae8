"""`python -m simmat`, and what `accelerate launch -m simmat` starts in every process."""

from simmat.cli import main

# a data-loading process that is spawned imports this file again
if __name__ == "__main__":
    main()
