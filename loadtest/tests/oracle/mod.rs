//! The oracle: histories written by hand, one that holds and one that is broken for every rule; histories of a correct model,
//! which all hold; and histories of models that lack one rule, which are all caught.

mod broken;
mod carts;
mod edges;
mod file;
mod handmade;
mod holds;
mod model;
mod tale;
