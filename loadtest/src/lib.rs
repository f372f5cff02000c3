//! Open-loop load generator and checker for flash sales.
