"""`python -m simmat`, and what `accelerate launch -m simmat` starts in every process."""

from simmat.cli import main

if __name__ == "__main__":  # a data-loading process that is spawned imports this file again
    main()
