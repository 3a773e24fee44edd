"""`python -m datamesh`: the command line."""

from datamesh.cli.main import main

if __name__ == "__main__":
    main()
