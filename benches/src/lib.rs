//! Criterion micro-benches live beside this file, one per part.
