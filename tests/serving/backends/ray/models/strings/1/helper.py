SORRY = "cannot do that"
