"""The figures of the book, a module a part."""
