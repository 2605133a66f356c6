"""Python imports this before a program when it finds it: the program knows the store of the tests then."""

from tests.memory import MEMORY
from xloud_image.stores import TYPES

TYPES[MEMORY.name] = MEMORY
