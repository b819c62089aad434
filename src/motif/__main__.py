"""`python -m motif`, and so `accelerate launch -m motif train …`."""

from motif.cli.app import main

if __name__ == "__main__":
    main()
