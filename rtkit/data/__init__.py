"""Images, drawn or read, as uint8 tensors."""
