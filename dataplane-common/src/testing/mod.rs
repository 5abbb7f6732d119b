//! The core over plain bytes and plain maps.
//!
//! - [`buffer`]: a packet in a byte buffer, and a builder of packets
//! - [`world`]: the tables, with one client, one host and one container in them
//! - `cases`: packets and what becomes of them
//! - `icmp_cases`: ICMP errors, likewise

pub mod buffer;
mod cases;
mod icmp_cases;
pub mod world;
