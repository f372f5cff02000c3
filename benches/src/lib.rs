//! What the benches share. The benches themselves lie beside this folder, one file per part: `cargo bench -p benches --bench bucket`;
//! `settlement.rs` and `scale.rs` are programs that the side-by-side runs in `peers/` call.

pub mod threads;

pub mod purchases;

pub mod process;
