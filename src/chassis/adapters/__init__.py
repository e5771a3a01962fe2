"""One adapter per outside system. Each is imported only when it is used."""
