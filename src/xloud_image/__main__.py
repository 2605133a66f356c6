"""`python -m xloud_image` hands over to the command line."""

from xloud_image.cli import main

if __name__ == "__main__":
    main()
