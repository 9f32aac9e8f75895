"""Which replica runs on which card: packing by measured memory; pure, without Ray or a GPU."""
