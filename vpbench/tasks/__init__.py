"""What backbones are measured on besides clips of one label: predictions in, metrics out."""
