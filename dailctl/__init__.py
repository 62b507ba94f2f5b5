"""dailctl: the command line of dail."""
