"""`python -m ledgerq`: the command line."""

from ledgerq.cli import main

if __name__ == "__main__":
    main()
