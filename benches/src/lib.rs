//! What the benches share. The benches themselves lie beside this folder, one file per part: `cargo bench -p benches --bench bucket`.

pub mod threads;

pub mod purchases;
