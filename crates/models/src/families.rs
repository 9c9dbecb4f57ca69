//! The table of model families.
