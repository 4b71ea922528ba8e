"""The generated reference pages: each function reads the code and returns one page of Markdown."""
