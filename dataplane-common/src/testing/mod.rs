//! The core over plain bytes and plain maps.
//!
//! - [`sample`]: what tests need of an IP version: addresses, headers
//! - [`buffer`]: a packet in a byte buffer, and a builder of packets
//! - [`world`]: the tables, with one client, one host and one container in them
//! - [`programs`]: what the programs make of a packet
//! - [`fragments`]: the same for fragments
//! - [`operations`]: any bytes as a sequence of what happens, and what has to hold
//! - `cases`: packets and what becomes of them
//! - `icmp_cases`: ICMP errors, likewise

pub mod buffer;
#[cfg(test)]
mod cases;
pub mod fragments;
#[cfg(test)]
mod icmp_cases;
pub mod operations;
pub mod programs;
pub mod sample;
pub mod world;
