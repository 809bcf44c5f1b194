"""`python -m gancolor`, which is also what torchrun starts."""

from gancolor.cli import main

if __name__ == "__main__":
    main()
