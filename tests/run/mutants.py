"""./run mutants [NAME...]: builds the programs and runs tests/mutants/mutants.py."""

from build import build
from steps import become, main, python


def mutants(*arguments):
    build("gcc")
    become(python("tests/mutants/mutants.py", *arguments))


if __name__ == "__main__":
    main(mutants)
