"""`python -m streamgen`: the command line."""

from streamgen.cli import main

if __name__ == "__main__":
    main()
