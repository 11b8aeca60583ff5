"""What the doctor looks at: one file per part, each a function from settings to findings. They only read."""
