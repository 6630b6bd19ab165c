"""Hardware-dependent choices: dtype and attention implementation."""
