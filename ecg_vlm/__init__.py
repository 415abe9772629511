"""The product a person touches: the command line, the Reader, batch evaluation."""
