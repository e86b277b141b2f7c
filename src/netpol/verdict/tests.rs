//! The verdict, rule by rule. `s1_NN` is line NN of section 1 of the semantics that the project promises to keep;
//! each test says the line in its own words. Lines about packets only have no test here.

// The arguments are JSON literals, which nobody wants to see borrowed.
#![allow(clippy::needless_pass_by_value)]

mod addresses;
mod ends;
mod isolation;
mod peers;
mod ports;
mod tiers;
