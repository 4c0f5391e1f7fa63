"""``python -m bench.cli``, which is ``bench``."""

from bench.cli.main import main

if __name__ == "__main__":
    main()
