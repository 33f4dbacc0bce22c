//! Ten real programs.
