//! The one reader of configuration, for the program's file, its parts and load scenarios.
//!
//! serde stops at the first problem; `penstock check` must name them all. So the raw form of a configuration is the parsed TOML itself.
//! A [`Section`] hands out its values by type and range, notes what is wrong in [`Problems`], and goes on. What the values mean belongs
//! to the crates that read them. Files and environment come in through [`Inputs`], so that a test needs neither.

#![warn(unreachable_pub)]

mod section;

mod secrets;

mod shown;

mod problems;

mod nearest;

mod inputs;

pub mod units;

pub use self::{
    inputs::Inputs,
    nearest::one_of,
    problems::{Problem, Problems},
    section::{Section, keys_of, parse, read_at},
};
