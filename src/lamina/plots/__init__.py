"""Arrays to figures; matplotlib is imported when a figure is asked for."""
