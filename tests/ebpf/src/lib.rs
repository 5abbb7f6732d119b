//! What the program that watches the kernel drop packets and the tests have to agree on: the stamp that a
//! datagram of theirs ends with, and what is told of one that is dropped.
#![no_std]

use bytemuck::{Pod, Zeroable};

/// The last bytes of a datagram that is accounted for. The kernel's buffers are told apart by it wherever they
/// are dropped, whatever is in front of it by then. In the order of bytes of this machine, which makes and reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stamp {
    /// The run that it belongs to.
    pub run: u64,
    /// Its flow's number.
    pub flow: u32,
    /// Its number in its flow, from 0.
    pub sequence: u32,
    /// The container that answers with it, or [`Stamp::ASKS`].
    pub server: u32,
    /// Zero.
    pub padding: u32,
}

impl Stamp {
    /// In place of a container's number: a client's datagram.
    pub const ASKS: u32 = 0;
}

/// A datagram that the kernel has dropped.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Dropped {
    /// Which one.
    pub stamp: Stamp,
    /// The kernel's function that did it, by an address in it.
    pub location: u64,
    /// `enum skb_drop_reason`.
    pub reason: u32,
    /// Zero.
    pub padding: u32,
}

/// The program's name.
pub const PROGRAM: &str = "tell_dropped";

/// The tracepoint that it is attached to, and the group that this belongs to.
pub const TRACEPOINT: &str = "kfree_skb";
/// See [`TRACEPOINT`].
pub const GROUP: &str = "skb";

/// The names of its maps.
pub mod maps {
    /// A ring of [`Dropped`](crate::Dropped).
    pub const DROPPED: &str = "DROPPED";
    /// Per CPU, how many drops the program has dealt with: told, or not found to be of this run.
    pub const DEALT_WITH: &str = "DEALT_WITH";
}

/// The names of constants that it is given when it is loaded.
pub mod constants {
    /// [`Stamp::run`](crate::Stamp::run) (`u64`).
    pub const RUN: &str = "RUN";
    /// Where `struct sk_buff` has `head`, in bytes (`u32`).
    pub const SKB_HEAD: &str = "SKB_HEAD";
    /// Where `struct sk_buff` has `tail`, in bytes (`u32`).
    pub const SKB_TAIL: &str = "SKB_TAIL";
}
