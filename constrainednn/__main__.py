"""The command line: `python -m constrainednn`."""

from constrainednn.cli import main

if __name__ == "__main__":
    main()
