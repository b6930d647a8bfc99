"""How answers are printed: one printer for each format of `--write-out`."""
