"""What the compilers linked into a component: a module for each way of naming what others made."""
