//! The files of a model: a folder on disk or files compiled into the program.

/// Where the files of a model come from.
pub struct Repository {}
