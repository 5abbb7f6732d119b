//! What portway takes to come into effect, in time and in memory.
//!
//! | module | is about |
//! |---|---|
//! | [`publish`] | publishing many ports by hand |
//! | [`first_packet`] | from `docker run -p` to the first packet on the fast path |
//! | [`memory`] | memory with a million live flows |
//! | [`maps`] | the kernel's memory for portway's maps |

pub mod first_packet;
pub mod maps;
pub mod memory;
pub mod publish;

use crate::plan::Plan;

/// The scenarios.
pub fn plans() -> Vec<Plan> {
    vec![first_packet::plan(), publish::plan(), memory::plan()]
}
