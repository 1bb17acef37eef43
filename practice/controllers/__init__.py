"""What reacts to objects on the practice range, one file per controller of the real thing."""
