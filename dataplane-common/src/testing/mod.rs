//! The core over plain bytes and plain maps.
//!
//! - [`buffer`]: a packet in a byte buffer, and a builder of packets
//! - [`world`]: the tables, with one client, one host and one container in them
//! - `cases`: packets and what becomes of them

pub mod buffer;
mod cases;
pub mod world;
